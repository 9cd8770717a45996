"""Rules over the files of the repository: how they are called, and what none of them mentions."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("benchmarks", "curation", "flows", "pipelines", "schemas", "tests", "training")
SHAPELESS = {"utils", "common", "helpers", "misc", "base", "core", "types"}
A_MACHINES_PATH = re.compile(r"(?<![\w.$}>*/:-])/(?:home|mnt|opt|root|scratch|Users|work|workspace)/\w")
TEXTS = {".json", ".md", ".py", ".sql", ".toml", ".txt", ".yaml", ".yml", ""}


def files() -> list[Path]:
    found = [path for path in ROOT.iterdir() if path.is_file()] + list((ROOT / ".ci").iterdir())
    for package in PACKAGES:
        found += [path for path in (ROOT / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert len(found) > 100
    return found


def test_every_file_says_by_its_name_what_it_is_for() -> None:
    assert [str(path) for path in files() if path.stem in SHAPELESS] == []
    folders = {folder.name for path in files() for folder in path.relative_to(ROOT).parents}
    assert folders & SHAPELESS == set()


def test_tests_are_flat_files_so_that_none_is_named_like_a_package() -> None:
    assert [path for path in files() if path.suffix == ".py" and path.parent.parent == ROOT / "tests"] == []
    assert not (ROOT / "tests" / "__init__.py").exists()


def test_no_file_mentions_a_path_of_a_machine() -> None:
    texts = {path: path.read_text() for path in files() if path.suffix in TEXTS}
    assert [str(path) for path, text in texts.items() if A_MACHINES_PATH.search(text)] == []


def test_the_lock_holds_digests_and_no_address_of_a_registry() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert "--hash=sha256:" in lock
    assert "://" not in lock


def test_no_test_forks_the_process_that_runs_it() -> None:
    """What earlier tests left there, threads of torch above all, kills the child, or makes it a second test runner."""
    tests = (ROOT / "tests").glob("test_*.py")
    forks = re.compile(r"\bos\.fork" + r"\(|get_context\(\"fork")
    assert [path.name for path in tests if forks.search(path.read_text())] == []


def test_pipelines_hold_no_python() -> None:
    assert list((ROOT / "pipelines").rglob("*.py")) == []


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_what_a_benchmark_takes_from_us_is_there(path: Path) -> None:
    """Benchmarks run seldom, and often elsewhere: what they import must not be gone by then."""
    taken = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in taken if (node.module or "").split(".")[0] in ("curation", "flows", "schemas", "training")]
    gone = [
        f"{node.module}.{name.name}"
        for node in ours
        for name in node.names
        if not hasattr(importlib.import_module(str(node.module)), name.name)
        and importlib.util.find_spec(f"{node.module}.{name.name}") is None
    ]
    assert gone == []
