"""The README says what is so: its specifications plan, its tables are the classes', its files and verbs exist."""

import re
from pathlib import Path

import pytest
import yaml

from curation.fetch import outcomes
from curation.plan import build_plan, shards_wanted
from flows.catalogue import catalogue_markdown
from flows.command_line import cli
from schemas.generative import GenerativeSpec
from schemas.pipeline import CurationSpec
from schemas.training import TrainingSpec

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
TRAINING = (ROOT / "training" / "README.md").read_text(encoding="utf-8")
LOOKING = (ROOT / "curation" / "analytics" / "README.md").read_text(encoding="utf-8")
DOWNLOADS = (ROOT / "curation" / "fetch" / "README.md").read_text(encoding="utf-8")
FILES_TO_READ = (
    "pipelines/curation/demo.yaml",
    "schemas/columns.py",
    "curation/operator.py",
    "curation/operators/clip_score.py",
    "curation/plan.py",
    "curation/execution/worker.py",
    "training/loop.py",
)


def section(name: str) -> str:
    """The text between `<!-- name -->` and `<!-- end -->`."""
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- end -->", README, re.DOTALL)
    assert found is not None, f"the README has no section {name}"
    return found[1].strip()


def blocks(language: str) -> list[str]:
    texts = README + TRAINING + LOOKING
    return re.findall(rf"^```{language}\n(.*?)^```", texts, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("text", [text for text in blocks("yaml") if "shards:" in text])
def test_every_specification_can_be_planned(text: str) -> None:
    spec = CurationSpec.model_validate(yaml.safe_load(text))
    plan = build_plan(spec, {}, captured=False)
    assert len(plan.steps) == len(spec.steps)
    shards_wanted(spec, plan)


@pytest.mark.parametrize("text", [text for text in blocks("yaml") if "task:" in text])
def test_every_training_can_be_read(text: str) -> None:
    said = yaml.safe_load(text)
    kind = GenerativeSpec if said["task"] == "generative" else TrainingSpec
    assert kind.model_validate(said).name == said["name"]


def test_every_specification_is_one_of_these() -> None:
    assert all(("shards:" in text) != ("task:" in text) for text in blocks("yaml"))


def test_the_tables_of_steps_are_those_of_the_classes() -> None:
    assert section("operators") == catalogue_markdown(), "put the output of `pairmill operators --markdown` there"


def test_the_table_of_outcomes_says_which_of_the_engines_may_pass() -> None:
    table = DOWNLOADS.split("| may pass | stays |")[1].split("\n\n")[0]
    columns = [
        " ".join(cells) for cells in zip(*(line.split("|")[1:3] for line in table.splitlines()[2:]), strict=True)
    ]
    passing, final = (set(re.findall("`([a-z0-9_]+)`", column)) for column in columns)
    every = {value for name, value in vars(outcomes).items() if name.isupper() and isinstance(value, str)}
    assert passing == outcomes.PASSING
    assert final == every - outcomes.PASSING - {outcomes.OK}


def test_the_table_of_commands_names_every_verb_and_no_other() -> None:
    table = README.split("## The commands")[1].split("\n\n## ")[0]
    assert sorted(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)) == sorted(cli.commands)


def test_every_command_line_names_a_verb_and_options_that_exist() -> None:
    lines = re.findall(
        r"pairmill ([a-z-]+)([^\n`]*)", "\n".join(blocks("sh")) + "\n".join(re.findall(r"`[^`]+`", README + LOOKING))
    )
    assert lines
    for verb, rest in lines:
        known = {name for parameter in cli.commands[verb].params for name in parameter.opts}
        assert set(re.findall(r"(?<!\S)--[a-z-]+", rest.split("#")[0])) <= known, f"pairmill {verb}{rest}"


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z]+)", README, re.MULTILINE)) <= targets


def test_the_files_to_read_have_about_as_many_lines_as_it_says() -> None:
    said = re.findall(r"^\d\. `([^`]+)` \(about (\d+) lines\): .+\.$", section("reading order"), re.MULTILINE)
    assert tuple(path for path, _ in said) == FILES_TO_READ
    lines = {path: (ROOT / path).read_text().count("\n") for path in FILES_TO_READ}
    for path, about in said:
        assert abs(lines[path] - int(about)) <= max(10, 0.15 * lines[path]), f"{path} has {lines[path]} lines"
    assert sum(lines.values()) < 1_000


def test_every_file_and_folder_that_it_names_is_there() -> None:
    named = re.findall(r"`((?:curation|flows|pipelines|schemas|tests|training)/[\w./]*)`", README)
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_picture_and_page_that_it_shows_is_there() -> None:
    for folder, text in ((ROOT, README), (ROOT / "curation" / "analytics", LOOKING)):
        named = re.findall(r"\]\(([^)#:]+)\)", text)
        assert named
        assert [name for name in named if not (folder / name).exists()] == []


def test_it_is_short() -> None:
    assert README.count("\n") < 300
