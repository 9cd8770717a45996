"""What a row may do to its worker, and what becomes of the rows beside it. The worker is a real child process."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import Silent, run_job, write_table
from own_operators import fate_of, opened, own_operator, seen, spec_of

from curation.execution.in_process import InProcess
from curation.job import Job, Wishes
from curation.storage import sidecars
from schemas.errors import PartError, RunError
from schemas.manifest import read_manifest
from schemas.pipeline import CurationSpec

GOOD = [f"good {n}" for n in range(5)]
CURATED = ("curated", "", "")


def failed(step: int, reason: str, name: str = "touchy") -> tuple[str, str, str]:
    return ("failed", f"steps[{step}] {name}", reason)


def begun(spec: dict[str, Any], executor: InProcess) -> Job:
    """A job that has started and needs workers."""
    job = Job.open(CurationSpec.model_validate(spec), Silent())
    job.start(lambda: executor)
    assert not job.advance()
    return job


def test_rows_that_kill_their_worker_fail_alone_at_the_operator_that_was_running(tmp_path: Path) -> None:
    captions = [*GOOD, "kill 1", "kill 2"]
    steps = ["caption_stats", own_operator(tmp_path), own_operator(tmp_path, "later")]
    fates = fate_of(run_job(spec_of(tmp_path, captions, steps, 20), debug=False).manifest)
    assert {caption for caption, fate in fates.items() if fate == CURATED} == set(GOOD)
    assert fates["kill 1"] == fates["kill 2"] == failed(1, "crash")
    assert not {"kill 1", "kill 2"} & set(seen(tmp_path, "later"))


def test_a_crash_is_tried_again_only_when_asked_for_and_only_those_rows_are_run(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, [*GOOD, "kill 1"], [own_operator(tmp_path)], 20)
    first = run_job(spec, debug=False)
    (tmp_path / "cured").touch()
    (tmp_path / "touchy.seen").unlink()
    assert run_job(spec, debug=False).version == first.version
    assert not (tmp_path / "touchy.seen").exists()
    second = run_job(spec, Wishes(retry=("crash",)), debug=False)
    assert seen(tmp_path) == ["kill 1"]
    assert fate_of(second.manifest)["kill 1"] == CURATED
    assert run_job(spec, debug=False).version == second.version


def test_a_row_that_kills_its_worker_again_when_tried_again_fails_again(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, ["good", "kill 1"], [own_operator(tmp_path)])
    first = run_job(spec, debug=False)
    assert run_job(spec, Wishes(retry=()), debug=False).version == first.version


def test_an_operator_that_kills_its_worker_once_costs_no_row(tmp_path: Path) -> None:
    captions = [*GOOD, "kill once a", "kill once b"]
    result = run_job(spec_of(tmp_path, captions, [own_operator(tmp_path)], 20), debug=False)
    assert set(fate_of(result.manifest).values()) == {CURATED}


def test_a_row_that_raises_or_whose_value_does_not_fit_fails_alone(tmp_path: Path) -> None:
    captions = [*GOOD, "raise it", "wrong type"]
    fates = fate_of(run_job(spec_of(tmp_path, captions, [own_operator(tmp_path)], 20)).manifest)
    assert fates.pop("raise it") == fates.pop("wrong type") == failed(0, "error")
    assert set(fates.values()) == {CURATED}


def test_a_part_that_cannot_be_finished_stops_the_run_when_the_others_are_through(tmp_path: Path) -> None:
    captions = [*GOOD, "refuse"]
    spec = spec_of(tmp_path, captions, [own_operator(tmp_path), {"top": {"by": "touchy_length", "rows": 2}}], 2)
    executor = InProcess(debug=True)
    job = begun(spec, executor)
    job.run.run_stage(executor)
    with pytest.raises(PartError) as raised:
        job.advance()
    parts = len(job.run.snapshot.parts)
    assert parts >= 3
    assert len([one for one in job.watcher.told if one[0] == "part"]) == parts - 1  # type: ignore[attr-defined]
    stuck = str(raised.value).rpartition("--give-up ")[2]
    assert stuck in [member.part.name for member in job.run.snapshot.parts]
    assert str(raised.value).startswith(f"part {stuck}, steps[0] touchy: the caption refuses; run the same again")
    result = run_job(spec, Wishes(give_up=[stuck]))
    fates = fate_of(result.manifest)
    assert fates["refuse"] == failed(0, "given_up")
    assert result.curated == 2
    gone = [caption for caption, fate in fates.items() if fate == failed(0, "given_up")]
    assert len(gone) == next(m.part.rows for m in job.run.snapshot.parts if m.part.name == stuck)


def test_an_operator_that_cannot_be_opened_stops_the_run_with_a_sentence(tmp_path: Path) -> None:
    step = own_operator(tmp_path)
    step["touchy"]["folder"] = str(tmp_path / "not there")
    with pytest.raises(RunError, match=r"steps\[0\] touchy: cannot be opened: FileNotFoundError"):
        run_job(spec_of(tmp_path, GOOD, [step]), debug=False)


def test_an_operator_that_kills_its_worker_when_it_is_opened_blames_no_row(tmp_path: Path) -> None:
    step = own_operator(tmp_path)
    path = tmp_path / "ops" / "touchy.py"
    path.write_text(path.read_text().replace("def open(self):", "def open(self):\n        os.kill(os.getpid(), 9)"))
    with pytest.raises(RunError, match="the worker dies when the operator is opened"):
        run_job(spec_of(tmp_path, GOOD, [step]), debug=False)
    assert not (tmp_path / "store" / "crashes").exists()


@pytest.mark.parametrize(("line", "refused"), [("", True), ("    captured: ClassVar[bool] = True\n", False)])
def test_two_computations_that_differ_stop_the_run_unless_the_operator_is_captured(
    tmp_path: Path, line: str, refused: bool
) -> None:
    step = own_operator(tmp_path)
    path = tmp_path / "ops" / "touchy.py"
    text = path.read_text().replace("    batch_rows:", f"{line}    batch_rows:")
    other_run = (
        "if once(Path(self.folder) / 'other run'):\n"
        "            from conftest import run_job\n"
        "            import json\n"
        "            run_job(json.loads((Path(self.folder) / 'spec.json').read_text()))\n"
        "            captions = [caption + '!' for caption in captions]\n"
    )
    path.write_text(text.replace("cured = (", f"{other_run}        cured = ("))
    spec = spec_of(tmp_path, GOOD, [step], 20)
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    if refused:
        with pytest.raises(RunError, match="two computations of the same rows gave different values"):
            run_job(spec)
    assert run_job(spec).curated == len(GOOD)


def test_a_value_that_is_no_number_is_the_same_twice(tmp_path: Path) -> None:
    import pyarrow as pa

    from curation.execution.generation import same_bits

    numbers = pa.chunked_array([pa.array([1.0, float("nan"), None], pa.float32())])
    assert same_bits(numbers, numbers.slice(0))
    assert not same_bits(numbers, pa.chunked_array([pa.array([1.0, 2.0, None], pa.float32())]))


def test_a_worker_opens_an_operator_once_for_all_its_parts(tmp_path: Path) -> None:
    run_job(spec_of(tmp_path, GOOD, [own_operator(tmp_path, actor=True)], 2), debug=False)
    assert len(opened(tmp_path)) == 1


def test_what_was_computed_before_an_error_stopped_the_part_is_not_computed_again(tmp_path: Path) -> None:
    steps = [own_operator(tmp_path, "first"), own_operator(tmp_path)]
    first = tmp_path / "ops" / "first.py"
    first.write_text(first.read_text().replace('startswith("refuse")', 'startswith("never")'))
    spec = spec_of(tmp_path, [*GOOD, "refuse"], steps, 20)
    for _ in range(2):
        with pytest.raises(PartError, match="the caption refuses"):
            run_job(spec)
    before = seen(tmp_path, "first")
    assert "refuse" in before
    assert len(before) == len(set(before))
    (tmp_path / "cured").touch()
    assert run_job(spec).curated == 6
    assert sorted(seen(tmp_path, "first")) == sorted([*GOOD, "refuse"])


def test_a_model_that_cannot_be_opened_stops_the_run_before_any_part_is_taken(tmp_path: Path) -> None:
    model = own_operator(tmp_path, "model", actor=True)
    model["model"]["folder"] = str(tmp_path / "not there")
    with pytest.raises(RunError, match=r"steps\[1\] model: cannot be opened: FileNotFoundError"):
        run_job(spec_of(tmp_path, GOOD, [own_operator(tmp_path), model]), debug=False)
    assert not (tmp_path / "touchy.seen").exists()


def test_a_row_of_which_nothing_can_be_derived_fails_alone(tmp_path: Path) -> None:
    own_operator(tmp_path)
    spec = spec_of(tmp_path, ["1", "2", "three"], [{"derive": {"number": "cast(caption as int)"}}])
    fates = fate_of(run_job(spec).manifest)
    assert fates == {"1": CURATED, "2": CURATED, "three": failed(0, "error", "derive")}


def test_a_predicate_that_fails_on_a_row_names_step_and_key(tmp_path: Path) -> None:
    own_operator(tmp_path)
    said = r"steps\[0\] (keep|top): on the row with key [0-9a-f]{32}: Could not convert string 'three' to INT32"
    for step in ({"keep": "cast(caption as int) > 0"}, {"top": {"by": "cast(caption as int)", "rows": 1}}):
        with pytest.raises(RunError, match=said):
            run_job(spec_of(tmp_path, ["1", "three"], [step]))


def test_an_operator_that_returns_too_few_values_is_told_so(tmp_path: Path) -> None:
    step = own_operator(tmp_path)
    path = tmp_path / "ops" / "touchy.py"
    path.write_text(path.read_text().replace("for c in captions]", "for c in captions[1:]]"))
    result = run_job(spec_of(tmp_path, GOOD, [step]))
    (sample,) = read_manifest(result.manifest).samples
    reasons = pq.read_table(result.manifest.parent / sample.parquet)["fate_reason"].to_pylist()
    assert set(reasons) == {"error: ValueError: column touchy_length: 0 values were returned for 1 rows"}


PASSING = """
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from curation.operator import Failure, Operator, Output, setting
from schemas.columns import CAPTION, Column
from schemas.errors import RunError

class Passing(Operator):
    \"""Fails for a while.\"""

    batch_rows: ClassVar[int] = 1
    passing: ClassVar[frozenset[str]] = frozenset({"soon"})
    folder: str = setting("", "where it looks")

    @property
    def reads(self):
        return (CAPTION,)

    @property
    def adds(self):
        return (Column("passing_length", pa.int64(), "length of the caption"),)

    def run(self, batch, opened):
        (caption,) = batch["caption"].to_pylist()
        if (Path(self.folder) / f"{caption} breaks").exists():
            raise RunError("it breaks")
        if caption != "good" and not (Path(self.folder) / "cured").exists():
            return Output({"passing_length": [None]}, {0: Failure("soon", "not yet")})
        return Output({"passing_length": [len(caption)]})
"""


def passing_spec(folder: Path, *steps: Any) -> dict[str, Any]:
    (folder / "ops").mkdir(exist_ok=True)
    (folder / "ops" / "passing.py").write_text(PASSING)
    return spec_of(folder, ["a", "b", "c"], [{"passing": {"folder": str(folder)}}, *steps])


def test_a_retry_that_breaks_off_leaves_what_it_did_not_reach_to_be_tried_again(tmp_path: Path) -> None:
    spec = passing_spec(tmp_path)
    assert run_job(spec).curated == 0
    (tmp_path / "cured").touch()
    (tmp_path / "b breaks").touch()
    for _ in range(2):
        with pytest.raises(PartError, match="it breaks"):
            run_job(spec, Wishes(retry=()))
    (tmp_path / "b breaks").unlink()
    assert run_job(spec).curated == 3


def test_who_only_notes_a_retry_and_loses_the_commit_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = passing_spec(tmp_path, "caption_stats") | {"source": {"table": str(tmp_path / "good.parquet")}}
    rows = [{"url": f"http://nowhere/{caption}", "caption": caption} for caption in ("a", "b", "good")]
    write_table(tmp_path / "good.parquet", rows)
    run_job(spec)
    commit, raced = sidecars.commit, []

    def lost_once(store: Any, sidecar: sidecars.Sidecar) -> bool:
        if sidecar.operator == "caption_stats" and sidecar.generation == 1 and not raced:
            raced.append(commit(store, replace(sidecar, retried_by=("another plan",))))
        return commit(store, sidecar)

    monkeypatch.setattr(sidecars, "commit", lost_once)
    assert run_job(spec, Wishes(retry=())).curated == 1
    assert raced == [True]


def test_a_keep_may_read_the_status_of_the_operator_before_it(tmp_path: Path) -> None:
    (tmp_path / "cured").touch()
    assert run_job(passing_spec(tmp_path, {"keep": "passing_status = 'ok' and passing_error is null"})).curated == 3
