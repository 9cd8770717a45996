"""The command line as a user meets it: quick, with exit codes, and with errors that are sentences."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flows.command_line import cli

HEAVY = ("ray", "prefect", "torch", "open_clip", "duckdb", "pyarrow", "numpy", "pydantic", "rich", "numba", "yaml")
PAIRMILL = [sys.executable, "-m", "flows.command_line"]


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read from or left in the user's own folder."""
    monkeypatch.setenv("PAIRMILL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def pairmill(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def write_spec(folder: Path, steps: str = "  - keep: length(caption) >= 3", rows: int = 30) -> Path:
    """A specification over a table of `rows` rows, a third of which have a short caption."""
    lines = [f"http://example.org/{i}.jpg,{'c' * (i % 3 + 1)},{i * 7 % 30}" for i in range(rows)]
    (folder / "pairs.csv").write_text("\n".join(["url,caption,score", *lines]) + "\n")
    text = f"""
        name: tiny
        store: {folder}/store
        source: {{table: {folder}/pairs.csv}}
        steps: STEPS
        shards: {{format: parquet, rows: 4}}
        """
    spec = folder / "spec.yaml"
    spec.write_text(textwrap.dedent(text).replace("STEPS", "\n" + steps))
    return spec


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from flows.command_line import cli\n"
        "cli(['--help'], standalone_mode=False)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.stderr.strip() == "[]"
    assert "run " in done.stdout


def test_check_imports_neither_ray_nor_prefect_nor_torch(tmp_path: Path) -> None:
    spec = write_spec(tmp_path)
    code = (
        "import sys\n"
        "from flows.command_line import cli\n"
        f"cli(['check', {str(spec)!r}], standalone_mode=False)\n"
        "print([name for name in ('ray', 'prefect', 'torch', 'open_clip') if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert (done.stderr.strip(), done.stdout.splitlines()[-1]) == ("[]", "ok")


def test_check_shows_steps_and_columns(tmp_path: Path) -> None:
    done = pairmill("check", str(write_spec(tmp_path)))
    assert done.exit_code == 0
    assert "steps[0] keep" in done.output
    assert "columns: key, url, caption, score" in done.output


def test_check_schema_is_a_json_schema_with_every_step() -> None:
    schema = json.loads(pairmill("check", "--schema").stdout)
    named = [entry["required"][0] for entry in schema["properties"]["steps"]["items"]["anyOf"] if "required" in entry]
    assert {"keep", "top", "dedup", "download"} <= set(named)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ("  - keep: length(captoin) > 3", "steps[0] keep"),
        ("  - kepe: length(caption) > 3", "did you mean 'keep'?"),
        ("  - top: {by: score, rows: 5, pre: url}", "there is no parameter 'pre'"),
    ],
)
def test_a_wrong_specification_is_refused_in_one_sentence_with_code_2(tmp_path: Path, steps: str, said: str) -> None:
    for verb in (["check"], ["plan"], ["run", "--executor", "in-process"]):
        done = pairmill(*verb, str(write_spec(tmp_path, steps)))
        assert done.exit_code == 2
        assert done.stderr.splitlines()[-1].startswith("error: ")
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "store").exists()


def test_a_missing_file_an_unknown_option_and_an_unknown_verb_are_wrong_input(tmp_path: Path) -> None:
    assert pairmill("check", "nowhere.yaml").exit_code == 2
    assert pairmill("run", str(write_spec(tmp_path)), "--lmit", "3").exit_code == 2
    assert pairmill("rnu").exit_code == 2
    assert pairmill("check").exit_code == 2


def test_debug_shows_the_traceback() -> None:
    done = pairmill("check", "nowhere.yaml", "--debug")
    assert done.exit_code == 2
    assert "Traceback" in done.stderr


def test_set_overrides_the_specification(tmp_path: Path) -> None:
    done = pairmill("check", str(write_spec(tmp_path)), "--set", "steps[0].keep=length(nothing) > 1")
    assert done.exit_code == 2
    assert "nothing" in done.stderr


def test_run_prints_one_json_object_last_and_plan_sees_what_is_there(tmp_path: Path) -> None:
    spec = str(write_spec(tmp_path, "  - keep: length(caption) >= 2\n  - top: {by: score, rows: 9}"))
    assert "not in the store yet" in pairmill("plan", spec).output
    assert not (tmp_path / "store").exists()
    done = pairmill("run", spec, "--json")
    assert done.exit_code == 0, done.stderr
    record = json.loads(done.stdout.splitlines()[-1])
    assert record["rows"] == {"pool": 30, "curated": 9}
    assert [row["rows_out"] for row in record["funnel"]] == [30, 20, 9]
    assert Path(record["manifest"]).exists()
    planned = pairmill("plan", spec)
    assert "in the store: 30 rows" in planned.output
    assert "done" in planned.output


def test_a_reselection_starts_neither_ray_nor_prefect(tmp_path: Path) -> None:
    spec = write_spec(tmp_path)
    code = (
        "import sys\n"
        "from flows.command_line import cli\n"
        f"cli(['run', {str(spec)!r}], standalone_mode=False)\n"
        "print([name for name in ('ray', 'prefect', 'torch') if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.stderr.splitlines()[-1] == "[]"
    assert "10 of 30 rows are curated" in done.stdout


def test_the_limit_takes_the_first_rows(tmp_path: Path) -> None:
    done = pairmill("run", str(write_spec(tmp_path)), "--limit", "6", "--json")
    assert json.loads(done.stdout.splitlines()[-1])["rows"] == {"pool": 6, "curated": 2}


def test_operators_lists_every_step_with_parameters_and_columns() -> None:
    rows = {row["name"]: row for row in json.loads(pairmill("operators", "--json").stdout)}
    assert rows["download"]["reads"] == ["url"]
    assert "image" in rows["download"]["adds"]
    assert [p["name"] for p in rows["image_hash"]["parameters"]] == ["kind"]
    assert all(row["summary"].endswith(".") for row in rows.values())
    text = pairmill("operators").stdout
    assert all(f"{name} (" in text for name in rows)


def test_status_and_down_say_that_nothing_runs() -> None:
    assert "no run goes on" in pairmill("status").output
    assert "nothing was up" in pairmill("down").output


def test_schedule_without_a_server_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    spec = str(write_spec(tmp_path))
    done = pairmill("schedule", spec, "--cron", "0 3 * * *")
    assert done.exit_code == 2
    assert "pairmill up" in done.stderr
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    done = pairmill("schedule", spec, "--cron", "0 3 * * *")
    assert done.exit_code == 2
    assert "cannot be reached" in done.stderr


def test_every_verb_has_a_sentence_of_help() -> None:
    for name, command in cli.commands.items():
        assert command.help, name
        assert command.help.splitlines()[0].endswith("."), name
