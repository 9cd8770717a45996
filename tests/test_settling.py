"""Blocks of parts: what is rolled up is not looked at again, and a long stage is several pieces of work."""

import pytest
from conftest import Silent, run_job, textured_jpeg, write_table
from own_operators import own_operator, seen, spec_of

from curation import settling
from curation.execution.in_process import InProcess
from curation.job import Job
from schemas.pipeline import CurationSpec

CAPTIONS = [f"caption {number}" for number in range(20)]


@pytest.fixture
def small_blocks(monkeypatch):
    """Two parts in a block."""
    monkeypatch.setattr(settling, "BLOCK_PARTS", 2)


def begun(spec, executor):
    job = Job.open(CurationSpec.model_validate(spec), Silent())
    job.start(lambda: executor)
    return job


def test_a_long_stage_is_worked_on_block_by_block(tmp_path, small_blocks):
    spec = spec_of(tmp_path, CAPTIONS, [own_operator(tmp_path)], 4)
    executor = InProcess(debug=True)
    job = begun(spec, executor)
    computed = []
    while not job.advance():
        job.run.run_stage(executor)
        computed.append(len(seen(tmp_path)))
    assert len(job.run.snapshot.parts) == 5
    assert computed == [8, 16, 20]
    assert job.finish().curated == len(CAPTIONS)


def test_a_resume_does_not_look_at_parts_that_are_rolled_up(tmp_path, small_blocks, monkeypatch):
    spec = spec_of(tmp_path, CAPTIONS, [own_operator(tmp_path)], 4)
    executor = InProcess(debug=True)
    first = begun(spec, executor)
    assert not first.advance()
    first.run.run_stage(executor)
    looked_at = []
    settle = settling.settle
    monkeypatch.setattr(settling, "settle", lambda task: looked_at.append(task.member.part.name) or settle(task))
    again = begun(spec, executor)
    assert not again.advance()
    assert sorted(looked_at) == [member.part.name for member in again.run.snapshot.parts[2:]]
    while not again.advance():
        again.run.run_stage(executor)
    whole = run_job(spec | {"store": str(tmp_path / "whole")})
    assert again.finish().version == whole.version
    assert sorted(seen(tmp_path)) == sorted(2 * CAPTIONS)


def test_looking_at_a_plan_writes_no_roll_up(tmp_path, small_blocks):
    spec = spec_of(tmp_path, CAPTIONS, [own_operator(tmp_path)], 4)
    executor = InProcess(debug=True)
    job = begun(spec, executor)
    assert not job.advance()
    job.run.run_stage(executor)
    before = sorted(path for path in (tmp_path / "store").rglob("*"))
    assert job.run.missing_rows() == {"steps[0] touchy": 12}
    assert sorted(path for path in (tmp_path / "store").rglob("*")) == before


def test_a_part_waits_for_an_earlier_one_that_fetches_its_url(web, tmp_path):
    urls = [web.put(f"/{i}.jpg", textured_jpeg(i)) for i in range(4)]
    download = {"download": {"allow_networks": ["127.0.0.0/8"]}}
    spec = spec_of(tmp_path, CAPTIONS, [download], 2) | {"operators": []}
    for caption in ("first", "second"):  # two ingests, nothing fetched yet
        write_table(tmp_path / "pairs.parquet", [{"url": url, "caption": caption} for url in urls])
        job = Job.open(CurationSpec.model_validate(spec | {"name": caption}), Silent())
        job.start(lambda: InProcess(debug=True))
    write_table(tmp_path / "pairs.parquet", [{"url": u, "caption": c} for u in urls for c in ("first", "second")])
    job = begun(spec, InProcess(debug=True))
    waves = []
    while not job.advance():
        waves.append([member.part.name[:5] for member in job.run._settling.next_block()])
        job.run.run_stage(InProcess(debug=True))
    assert waves == [["00000"] * 2, ["00001"] * 2]
    assert max(web.asked.values()) == 1
    assert job.finish().curated == 8
