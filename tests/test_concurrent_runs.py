"""Several runs over one store at once, each a process of its own: all end right."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import Silent, SmallWeb, run_job, textured_jpeg, write_table

from curation.execution.in_process import InProcess
from curation.job import Job
from curation.storage import sidecars
from curation.storage.pool import read_pool
from curation.storage.store import Store
from curation.versions import read_runs, versions
from schemas.manifest import read_manifest
from schemas.pipeline import CurationSpec
from schemas.shard import read_shard

HERE = Path(__file__).parent
DOWNLOAD = {"download": {"allow_networks": ["127.0.0.0/8"], "retries": 0, "timeout_s": 20, "isolate": False}}
RUNNER = """
import json, sys
from conftest import run_job
print("ready", flush=True)
result = run_job(json.loads(sys.stdin.readline()))
print(json.dumps([result.version, result.curated]), flush=True)
"""


@pytest.fixture
def processes() -> Iterator[list["subprocess.Popen[str]"]]:
    """Three processes that have imported everything and wait for a specification each."""
    environment = os.environ | {"PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}"}
    pipes: Mapping[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    started = [subprocess.Popen([sys.executable, "-c", RUNNER], text=True, env=environment, **pipes) for _ in range(3)]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    yield started
    for process in started:
        process.kill()
        process.communicate()


def at_once(processes: list["subprocess.Popen[str]"], specs: list[dict[str, Any]]) -> list[tuple[str, int]]:
    """(version, curated rows) of specifications that run at the same time."""
    for process, spec in zip(processes, specs, strict=True):
        assert process.stdin is not None
        print(json.dumps(spec), file=process.stdin, flush=True)
    found = []
    for process in processes:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        found.append(tuple(json.loads(out)))
    return found


def pairs(web: SmallWeb, numbers: range) -> list[dict[str, Any]]:
    rows = [{"url": web.put(f"/{n}.jpg", textured_jpeg(n)), "caption": f"picture {n}", "uid": n} for n in numbers]
    return [*rows, {"url": rows[0]["url"], "caption": "the same picture again", "uid": -1}]


def spec_over(tmp_path: Path, rows: list[dict[str, Any]], steps: list[Any], **more: Any) -> dict[str, Any]:
    table = write_table(tmp_path / f"{rows[0]['uid']}-{len(rows)}.parquet", rows)
    source = {"table": table, "rows_per_part": 4}
    steps = [DOWNLOAD, "inspect_image", *steps]
    return {"name": "set", "store": str(tmp_path / "store"), "source": source, "steps": steps} | more


def newest(tmp_path: Path, name: str) -> str:
    return read_manifest(tmp_path / "store" / "curated" / name / "manifest.json").version


def keys_of_pool(store: Store) -> list[str]:
    return [
        key for part in read_pool(store).parts for key in pq.read_table(store.path(part.file.name))["key"].to_pylist()
    ]


def test_three_runs_of_one_plan_at_once_make_one_version(
    web: SmallWeb, tmp_path: Path, processes: list["subprocess.Popen[str]"]
) -> None:
    spec = spec_over(tmp_path, pairs(web, range(20)), [{"keep": "uid % 2 = 0"}])
    wanted = run_job(spec | {"store": str(tmp_path / "alone")})
    web.asked.clear()
    found = at_once(processes, [spec] * 3)
    assert found == [(wanted.version, wanted.curated)] * 3
    assert set(web.asked.values()) <= {1, 2, 3}
    keys = keys_of_pool(Store(tmp_path / "store"))
    assert len(keys) == len(set(keys)) == 21
    assert len(read_runs(Store(tmp_path / "store"))) == 3
    assert newest(tmp_path, "set") == wanted.version


def test_different_specifications_over_one_store_at_once_share_what_they_fetch_and_end_as_alone(
    web: SmallWeb, tmp_path: Path, processes: list["subprocess.Popen[str]"]
) -> None:
    specs = [
        spec_over(tmp_path, pairs(web, range(0, 12)), [{"keep": "width_px > 8"}], name="one"),
        spec_over(tmp_path, pairs(web, range(6, 18)), [{"image_hash": {"kind": "phash"}}], name="two"),
        spec_over(tmp_path, pairs(web, range(3, 15)), [{"top": {"by": "uid", "rows": 5}}], name="three"),
    ]
    wanted = [run_job(spec | {"store": str(tmp_path / spec["name"])}) for spec in specs]
    web.asked.clear()
    assert at_once(processes, specs) == [(result.version, result.curated) for result in wanted]
    assert len(web.asked) == 18
    assert max(web.asked.values()) <= 3
    keys = keys_of_pool(Store(tmp_path / "store"))
    assert len(keys) == len(set(keys)) == 18 + 3
    asked = web.asked.copy()
    assert [run_job(spec).version for spec in specs] == [result.version for result in wanted]
    assert web.asked == asked


def test_who_loses_a_commit_keeps_what_the_winner_lacks(
    web: SmallWeb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pairs(web, range(8))
    few = spec_over(tmp_path, rows, []) | {"name": "few", "steps": [{"keep": "uid between 0 and 2"}, DOWNLOAD]}
    commit, raced = sidecars.commit, []

    def just_after_another(store: Store, sidecar: sidecars.Sidecar) -> bool:
        if not raced:
            raced.append(run_job)
            run_job(few)
        return commit(store, sidecar)

    monkeypatch.setattr(sidecars, "commit", just_after_another)
    result = run_job(spec_over(tmp_path, rows, []))
    assert result.curated == 9
    monkeypatch.undo()
    assert set(web.asked.values()) <= {1, 2}
    assert sum(web.asked.values()) <= 8 + 3
    assert run_job(spec_over(tmp_path, rows, []) | {"store": str(tmp_path / "alone")}).version == result.version


def test_the_newest_manifest_is_that_of_the_run_that_started_last(web: SmallWeb, tmp_path: Path) -> None:
    rows = pairs(web, range(6))
    slow = Job.open(CurationSpec.model_validate(spec_over(tmp_path, rows, [{"keep": "uid < 3"}])), Silent())
    executor = InProcess(debug=True)
    slow.start(lambda: executor)
    later = run_job(spec_over(tmp_path, rows, [{"keep": "uid < 5"}]))
    while not slow.advance():
        slow.run.run_stage(executor)
    earlier = slow.finish(executor)
    assert earlier.version != later.version
    assert newest(tmp_path, "set") == later.version
    third = run_job(spec_over(tmp_path, rows, [{"keep": "uid < 3"}]))
    assert (third.version, newest(tmp_path, "set")) == (earlier.version, earlier.version)


def test_an_edited_specification_makes_a_version_beside_the_old_one(web: SmallWeb, tmp_path: Path) -> None:
    rows = pairs(web, range(6))
    first = run_job(spec_over(tmp_path, rows, [{"keep": "uid < 3"}]))
    second = run_job(spec_over(tmp_path, rows, [{"keep": "uid < 5"}]))
    new, old = versions(Store(tmp_path / "store"), "set")
    assert (new.version, old.version) == (second.version, first.version)
    assert newest(tmp_path, "set") == second.version
    shards = read_manifest(old.path).shards
    assert sum(pq.read_table(old.path.parent / shard.parquet).num_rows for shard in shards) == first.curated
    assert sum(1 for shard in shards for _ in read_shard(old.path.parent / shard.tar)) == first.curated
