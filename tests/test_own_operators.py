"""A user's own operators: one file in a folder that the specification names, no fork."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from conftest import run_job, write_table

from curation.operator_contract import check_folder
from curation.plan import build_plan
from flows.command_line import cli
from schemas.manifest import read_manifest
from schemas.pipeline import CurationSpec

SHOUT = '''"""A caption in capitals."""

import pyarrow as pa

from curation.operator import Failure, Operator, Output
from schemas.columns import CAPTION, Column


class Shout(Operator):
    """The caption in capitals."""

    @property
    def reads(self):
        return (CAPTION,)

    @property
    def adds(self):
        return (Column("shouted", pa.string(), "the caption in capitals"),)

    def run(self, batch, opened):
        captions = batch["caption"].to_pylist()
        failures = {row: Failure("silent", "has no caption") for row, text in enumerate(captions) if not text}
        return Output({"shouted": [(text or "").upper() for text in captions]}, failures)
'''


@pytest.fixture
def ops(tmp_path: Path) -> Path:
    (tmp_path / "ops").mkdir()
    (tmp_path / "ops" / "shout.py").write_text(SHOUT)
    return tmp_path / "ops"


def spec_over(ops: Path) -> dict:
    rows = [
        {"url": f"http://nowhere/{i}", "caption": text, "uid": i} for i, text in enumerate(["a dog", "", "the cat"])
    ]
    return {
        "name": "loud",
        "store": str(ops.parent / "store"),
        "source": {"table": write_table(ops.parent / "pairs.parquet", rows)},
        "operators": str(ops),
        "steps": ["shout", {"keep": "shouted like 'A%'"}],
        "shards": {"format": "parquet"},
    }


def samples(spec: dict) -> dict[int, dict]:
    manifest = run_job(spec).manifest
    (part,) = read_manifest(manifest).samples
    return {row["uid"]: row for row in pq.read_table(manifest.parent / part.parquet).to_pylist()}


def fingerprint(ops: Path) -> str:
    step, _ = build_plan(CurationSpec.model_validate(spec_over(ops)), {}, captured=False).steps
    return step.base_fingerprint  # type: ignore[union-attr]


def test_an_operator_of_ones_own_runs_like_ours(ops: Path) -> None:
    rows = samples(spec_over(ops))
    assert [rows[uid]["shouted"] for uid in range(3)] == ["A DOG", None, "THE CAT"]
    assert [rows[uid]["fate"] for uid in range(3)] == ["curated", "failed", "dropped"]
    assert rows[1]["fate_reason"] == "silent: has no caption"


def test_another_text_of_the_file_is_another_operator_and_its_values_are_computed_anew(ops: Path) -> None:
    before = fingerprint(ops)
    assert fingerprint(ops) == before
    assert samples(spec_over(ops))[0]["shouted"] == "A DOG"
    (ops / "shout.py").write_text(SHOUT.replace(".upper() for", '.upper() + "!" for'))
    assert fingerprint(ops) != before
    assert samples(spec_over(ops))[0]["shouted"] == "A DOG!"


def operators(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["operators", *arguments])


def test_the_check_has_no_word_against_a_good_operator(ops: Path) -> None:
    done = operators("--check", str(ops))
    assert (done.output, done.exit_code) == ("shout.py: ok\n", 0)


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ('"""The caption in capitals."""\n\n    @', '"""the caption"""\n\n    @', "is no sentence"),
        ("import pyarrow as pa\n", "import pyarrow as pa\nimport numba\n", "imports numba at its top"),
        ('"shouted", pa.string()', '"shouted", pa.int32()', "does not fit what the operator declares"),
        ('Output({"shouted"', 'Output({"loud"', "it adds ['shouted'], but returns ['loud']"),
        ("for text in captions]}", "for text in captions[1:]]}", "'shouted' has 7 values for 8 rows"),
        (
            'batch["caption"]',
            'batch["url"]',
            "raises on row 0 of the sample (caption='a red circle on a wooden table')",
        ),
        ('(text or "").upper()', "captions[0]", "must not depend on the rows beside it"),
        (
            'Column("shouted", pa',
            'Column("phash", pa',
            "adds 'phash' as string, but schemas/columns.py has it as uint64",
        ),
        ("    def run", "    loud: int\n\n    def run", "parameter 'loud' has no description"),
        ("    def run", "    loud: int\n\n    def run", "parameter 'loud' is required; write Field(…, examples=[…])"),
        ("class Shout", "class Other:\n    pass\n\n\nclass Shout", "2 public classes (Other, Shout)"),
        ("    def run", "    def open(self):\n        raise OSError('no disk')\n\n    def run", "OSError: no disk"),
    ],
)
def test_the_check_says_in_a_sentence_what_an_operator_breaks(ops: Path, was: str, now: str, said: str) -> None:
    assert was in SHOUT
    (ops / "shout.py").write_text(SHOUT.replace(was, now))
    breaches = check_folder(ops)["shout.py"]
    assert any(said in breach for breach in breaches), breaches
    done = operators("--check", str(ops))
    assert done.exit_code == 2
    assert f"shout.py: {breaches[0]}" in done.output


def test_a_required_parameter_is_tried_with_its_first_example(ops: Path) -> None:
    text = SHOUT.replace(
        "    def run", '    mark: str = Field(description="what follows", examples=["!"])\n\n    def run'
    )
    text = text.replace("import pyarrow as pa\n", "import pyarrow as pa\nfrom pydantic import Field\n")
    (ops / "shout.py").write_text(text.replace(".upper() for", ".upper() + self.mark for"))
    assert check_folder(ops) == {"shout.py": []}


def test_a_folder_without_operators_is_refused(tmp_path: Path) -> None:
    for folder, said in ((tmp_path, "holds no operator"), (tmp_path / "none", "no such folder")):
        done = operators("--check", str(folder))
        assert done.exit_code == 2
        assert said in done.stderr


def test_a_file_that_cannot_be_loaded_or_has_a_taken_name_does_not_keep_the_others_from_being_checked(
    ops: Path,
) -> None:
    (ops / "broken.py").write_text("import pyarrow as pa\n\nclass Broken(:\n")
    (ops / "failing.py").write_text("import pyarrow as pa\n\npa.nonesuch\n")
    (ops / "latin.py").write_bytes("# gr\xfcn\n".encode("latin-1"))
    (ops / "download.py").write_text(SHOUT)
    done = operators("--check", str(ops))
    assert done.exit_code == 2
    assert "broken.py: cannot be loaded: line 3: SyntaxError: invalid syntax\n" in done.output
    assert "failing.py: cannot be loaded: line 3: AttributeError: " in done.output
    assert "latin.py: cannot be read: 'utf-8' codec" in done.output
    assert "download.py: has the name of a step that exists; rename it\n" in done.output
    assert "shout.py: ok\n" in done.output
