"""`what-if`: it tells what `run` would then select, to the row, and leaves the store as it was."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from conftest import Silent, run_job, textured_jpeg, write_table

from curation.analytics.aligned_steps import Line, aligned
from curation.analytics.diff import diff
from curation.analytics.what_if import WhatIf, what_if
from curation.job import Job, Wishes
from curation.storage.store import Store
from flows.command_line import cli
from schemas.errors import InputError, RunError
from schemas.pipeline import CurationSpec

STEPS = [
    "caption_stats",
    {"keep": "length(caption) >= 10", "id": "long_enough"},
    {"top": {"by": "score", "fraction": "0.6"}, "id": "best"},
    {"dedup": {"by": "phash", "within": 2}, "id": "near_dup"},
    {"keep": "score > 0.05"},
]


def spec_of(folder: Path, steps: list | None = None, **more) -> dict:
    """Two hundred rows that bring scores and hashes, in parts of thirty; one fails at the source."""
    source = {"table": pairs(folder / "pairs.parquet", "http://h/"), "rows_per_part": 30}
    base = {"name": "set", "store": str(folder / "store"), "source": source, "shards": {"format": "parquet"}}
    return base | {"steps": STEPS if steps is None else steps} | more


def pairs(path: Path, site: str) -> str:
    """The table, written once; in groups of four two pairs are one bit apart, and three bits from each other."""
    numbers = np.arange(201)
    spread = (numbers // 4).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # far apart, but for groups of four
    table = {
        "url": [f"{site}{n}" for n in range(200)] + [f"{site}\n"],
        "caption": [f"caption {n}" for n in range(201)],
        "score": (numbers * 37 % 200) / 200,
        "vector": pa.array(np.random.default_rng(0).normal(size=(201, 4)).tolist(), pa.list_(pa.float32())),
        "phash": spread ^ np.array([0b0000, 0b0001, 0b1110, 0b1111], np.uint64)[numbers % 4],
    }
    if not path.exists():
        pq.write_table(pa.table(table), path)
    return str(path)


def supposed(spec: dict, wishes: Wishes | None = None, **more) -> WhatIf:
    return what_if(Job.open(CurationSpec.model_validate(spec), Silent(), wishes), **more)


def files_of(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Every file and folder with its length, time and number of links."""
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns, p.stat().st_nlink) for p in sorted(folder.rglob("*"))}


def curated_keys(manifest: Path) -> set[str]:
    found = json.loads(manifest.read_text())["samples"]
    tables = [pq.read_table(manifest.parent / entry["parquet"], columns=["key", "fate"]) for entry in found]
    return {row["key"] for table in tables for row in table.to_pylist() if row["fate"] == "curated"}


CHANGES = {
    "a looser first filter": [STEPS[0], {"keep": "length(caption) >= 3", "id": "long_enough"}, *STEPS[2:]],
    "a stricter fraction": [*STEPS[:2], {"top": {"by": "score", "fraction": "0.25"}, "id": "best"}, *STEPS[3:]],
    "a stricter radius of found pairs": [
        *STEPS[:3],
        {"dedup": {"by": "phash", "within": 0}, "id": "near_dup"},
        STEPS[4],
    ],
    "a looser radius, to be compared anew": [*STEPS[:3], {"dedup": {"by": "phash", "within": 3}}, STEPS[4]],
    "a comparison for equality before all others": [{"dedup": {"by": ["phash", "score"]}}, *STEPS],
    "a step less": [*STEPS[:2], *STEPS[3:]],
    "a step more before all others": [{"keep": "score < 0.9"}, *STEPS],
    "nothing": STEPS,
}


@pytest.mark.parametrize("steps", CHANGES.values(), ids=CHANGES.keys())
def test_it_tells_to_the_row_what_run_then_selects_and_writes_nothing(tmp_path, steps):
    before = run_job(spec_of(tmp_path))
    old = curated_keys(before.manifest)
    files = files_of(tmp_path)
    found = supposed(spec_of(tmp_path, steps), examples=1000)
    assert files_of(tmp_path) == files
    after = run_job(spec_of(tmp_path, steps))
    new = curated_keys(after.manifest)
    counts = {"curated_before": len(old), "curated_now": len(new), "both": len(old & new)}
    assert found.counts == counts | {"out": len(old - new), "in": len(new - old)}
    assert {key for move in found.moves if move.fate_a == "curated" for key in move.examples} == old - new
    assert {key for move in found.moves if move.fate_b == "curated" for key in move.examples} == new - old
    told = [(s.now, s.rows_in_now, s.rows_out_now) for s in found.steps if s.now]
    assert told == [(entry["step"], entry["rows_in"], entry["rows_out"]) for entry in after.funnel]
    was = {s.before: (s.rows_in_before, s.rows_out_before) for s in found.steps if s.before}
    assert was == {entry["step"]: (entry["rows_in"], entry["rows_out"]) for entry in before.funnel}
    if steps != STEPS:
        said = diff(tmp_path / "store", f"set@{before.version}", f"set@{after.version}")
        assert said.counts["curated_only_a"] == found.counts["out"]
        assert said.counts["curated_only_b"] == found.counts["in"]


def test_fetched_pictures_and_failures_that_may_pass_are_as_a_run_would_take_them(web, tmp_path):
    rows = [{"url": web.put(f"/{n}.jpg", textured_jpeg(n, 80 + 10 * n)), "caption": f"picture {n}"} for n in range(5)]
    rows.append({"url": f"{web.base_url}/gone.jpg", "caption": "gone"})
    rows.append({"url": web.put("/busy.jpg", b"", 503), "caption": "busy"})
    download = {"download": {"allow_networks": ["127.0.0.0/8"], "retries": 0, "isolate": False}}
    steps = [download, "inspect_image", {"keep": "width_px > 85", "id": "wide"}]
    source = {"table": write_table(tmp_path / "web.parquet", rows), "rows_per_part": 3}
    run_job(spec_of(tmp_path, steps, source=source, shards={}))
    files, asked = files_of(tmp_path), web.asked.total()
    narrower = [*steps[:2], {"keep": "width_px > 105", "id": "wide"}]
    found = supposed(spec_of(tmp_path, narrower, source=source, shards={}))
    assert (files_of(tmp_path), web.asked.total()) == (files, asked)
    assert found.counts == {"curated_before": 4, "curated_now": 2, "both": 2, "out": 2, "in": 0}
    after = run_job(spec_of(tmp_path, narrower, source=source, shards={}))
    told = [(s.now, s.rows_in_now, s.rows_out_now) for s in found.steps]
    assert told == [(entry["step"], entry["rows_in"], entry["rows_out"]) for entry in after.funnel]


def test_a_step_that_only_moved_is_no_difference(tmp_path):
    run_job(spec_of(tmp_path))
    found = supposed(spec_of(tmp_path, [{"keep": "true"}, *STEPS]))
    assert found.moves == ()
    assert [(s.before, s.now) for s in found.steps if s.before != s.now] == [
        (None, "steps[0] keep"),
        ("steps[0] caption_stats", "steps[1] caption_stats"),
        ("steps[4] keep", "steps[5] keep"),
    ]


def test_steps_pair_by_what_they_say_then_by_kind_and_id():
    a, b, c = {"name": "keep", "parameters": "a"}, {"name": "keep", "parameters": "b"}, {"name": "top", "id": "best"}
    assert aligned([a, b, c], [b, c]) == [Line(0, None), Line(1, 0), Line(2, 1)]
    assert aligned([a, c], [b, c]) == [Line(0, 0, changed=True), Line(1, 1)]
    assert aligned([a], [c]) == [Line(0, None), Line(None, 0)]
    assert aligned([], []) == []


def test_what_only_a_run_can_compute_is_named_with_its_rows(tmp_path):
    run_job(spec_of(tmp_path))
    files = files_of(tmp_path)
    steps = [*STEPS[:3], "language", *STEPS[3:]]
    found = supposed(spec_of(tmp_path, steps))
    alive = 114
    assert found.lacking == (
        f"signals are not there of {alive} rows at steps[3] language (of {alive} alive); "
        "`pairmill run` would compute them and go on"
    )
    assert found.counts == {}
    told = {step.now: step.rows_out_now for step in found.steps}
    assert told["best"] == alive
    assert told["steps[3] language"] is None
    assert told["near_dup"] is None
    assert found.exit_code == 1
    assert files_of(tmp_path) == files


def test_a_looser_filter_before_an_operator_lacks_only_the_new_rows(tmp_path):
    strict = [{"keep": "score > 0.5"}, "caption_stats", {"keep": "caption_words = 2"}]
    run_job(spec_of(tmp_path, strict))
    found = supposed(spec_of(tmp_path, [{"keep": "score > 0.4"}, *strict[1:]]))
    assert "20 rows at steps[1] caption_stats (of 200 alive)" in found.lacking


def test_a_join_that_would_take_long_is_named_and_not_made(tmp_path, monkeypatch):
    run_job(spec_of(tmp_path))
    monkeypatch.setattr("curation.execution.joins.WORTH_WORKERS_S", -1.0)
    found = supposed(spec_of(tmp_path, CHANGES["a looser radius, to be compared anew"]))
    assert found.lacking.startswith("steps[3] dedup: its rows have not been compared so far")
    assert supposed(spec_of(tmp_path, CHANGES["a stricter radius of found pairs"])).lacking == ""


def test_centroids_that_were_not_trained_are_named_and_those_that_were_serve(tmp_path):
    cells = {"cluster": {"by": "vector", "k": 4}, "id": "cells"}
    run_job(spec_of(tmp_path, [cells]))
    files = files_of(tmp_path)
    found = supposed(spec_of(tmp_path, [cells, {"keep": "cluster < 2"}]), examples=1000)
    assert found.counts["out"] > 0
    lacking = supposed(spec_of(tmp_path, [{"cluster": {"by": "vector", "k": 3}, "id": "cells"}])).lacking
    assert lacking.startswith("cells: the centroids of its cells are not in the store")
    assert files_of(tmp_path) == files
    run_job(spec_of(tmp_path, [cells, {"keep": "cluster < 2"}]))
    after = supposed(spec_of(tmp_path, [cells, {"keep": "cluster < 2"}]))
    assert after.counts["curated_now"] == found.counts["curated_now"]
    assert after.counts["out"] == after.counts["in"] == 0


def test_an_error_that_run_would_meet_is_met_here_too(tmp_path):
    run_job(spec_of(tmp_path))
    with pytest.raises(RunError, match=r"steps\[0\] keep.*caption"):
        supposed(spec_of(tmp_path, [{"keep": "caption::INTEGER > 3"}]))


def test_no_version_and_other_rows_are_sentences(tmp_path):
    with pytest.raises(InputError, match="there is no store here"):
        supposed(spec_of(tmp_path))
    run_job(spec_of(tmp_path))
    with pytest.raises(InputError, match=r"data set 'other'.*no finished version of it; it has the data set set"):
        supposed(spec_of(tmp_path, name="other"))
    with pytest.raises(InputError, match="has not read this source"):
        supposed(spec_of(tmp_path), Wishes(limit=50))
    run_job(spec_of(tmp_path, name="few"), Wishes(limit=50))
    with pytest.raises(InputError, match=r"not over the rows of set@.*it has 50 rows, and the version has 201"):
        supposed(spec_of(tmp_path), Wishes(limit=50))
    other = {"table": pairs(tmp_path / "other.parquet", "http://other/"), "rows_per_part": 30}
    run_job(spec_of(tmp_path, name="third", source=other))
    with pytest.raises(InputError, match=r"not over the rows of set@.*402 keys are in one of them only"):
        supposed(spec_of(tmp_path, source=other))


def test_the_command_prints_both_funnels_and_obeys_set(tmp_path, monkeypatch):
    run_job(spec_of(tmp_path))
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(spec_of(tmp_path)))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["what-if", str(path), "--set", "best.fraction=0.3"])
    assert done.exit_code == 0, done.output
    assert "* best" in done.output
    assert "would go out" in done.output
    assert "curated -> dropped at best" in done.output
    done = CliRunner().invoke(cli, ["what-if", str(path), "--set", "best.fraction=0.3", "--json"])
    record = json.loads(done.output)
    assert record["counts"]["out"] > 0
    assert record["moves"][0]["examples"]
    assert Store(tmp_path / "store").get("runs/00000001.json") is None
