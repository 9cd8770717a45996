"""`prune` removes what no kept version needs, and nothing else; wherever it is killed the store reads well."""

import json
import os
import subprocess
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import run_job, write_table
from small_store import (
    FINGERPRINT,
    STEPS,
    add_downloads,
    add_version,
    manifest_path,
    new_store,
    pair,
    start_run,
    usual_pairs,
)

from curation.prune import prune
from curation.storage import layout
from curation.storage.store import Store
from curation.storage.tables import put_table
from curation.verify import verify
from curation.versions import tag, versions
from schemas.errors import StoreError
from schemas.pins import put_pin, read_pins

OTHER_FINGERPRINT = "cd" * 32


@pytest.fixture
def store(tmp_path) -> Store:
    return new_store(tmp_path)


@pytest.fixture
def three(store) -> list[str]:
    """Three versions of `demo` by three plans, oldest first; they share a shard's worth of rows."""
    rows = usual_pairs()
    return [add_version(store, [*rows, *(pair(50 + i) for i in range(n))], plan=f"plan{n}") for n in range(3)]


def files(store: Store) -> set[str]:
    return {str(p.relative_to(store.root)) for p in store.root.rglob("*") if p.is_file() and p.name != "lock"}


def readable(store: Store, name: str = "demo") -> list[str]:
    """The versions that can be read; each of them is sound."""
    found = versions(store, name)
    for version in found:
        assert verify(version.path).errors == []
    return [version.version for version in found]


def test_a_dry_run_removes_nothing_and_says_what_would_go(store, three):
    before = files(store)
    would = prune(store.root, signals=True)
    assert files(store) == before
    assert set(would.versions) == {f"demo@{three[0]}", f"demo@{three[1]}"}
    assert "Nothing was removed" in would.text()
    assert json.loads(json.dumps(would.record()))["dry_run"]


def test_a_dry_run_tells_exactly_what_then_goes(store, three):
    before = files(store)
    would = prune(store.root)
    did = prune(store.root, remove=True)
    assert sorted(did.files) == sorted(would.files) == sorted(before - files(store))
    assert did.bytes == would.bytes > 0


def test_only_the_newest_version_stays(store, three):
    prune(store.root, remove=True)
    assert readable(store) == [three[2]]
    assert verify(store.path("curated/demo")).ok
    assert not store.path(f"curated/demo/{three[0]}").exists()
    assert prune(store.root, remove=True).files == []


def test_all_bytes_that_only_old_versions_used_are_freed(store, three):
    prune(store.root, remove=True)
    there = files(store)
    fresh = new_store(store.root.parent / "fresh")
    add_version(fresh, [*usual_pairs(), pair(50), pair(51)], plan="plan2")
    blobs = {name for name in there if name.startswith("blobs/")}
    assert blobs == {name for name in files(fresh) if name.startswith("blobs/")}


def test_a_tagged_version_stays(store, three):
    tag(store, f"demo@{three[0]}", "paper")
    done = prune(store.root, remove=True)
    assert readable(store) == [three[2], three[0]]
    assert done.kept[f"demo@{three[0]}"] == "tagged paper"


def test_a_version_that_somebody_uses_stays_and_the_pin_is_named(store, three):
    put_pin(manifest_path(store, three[1]), three[1], "the training run r1")
    put_pin(manifest_path(store, three[1]), three[1], "the training run r1")
    (pin,) = read_pins(store.path("curated/demo"))
    done = prune(store.root, remove=True)
    assert readable(store) == [three[2], three[1]]
    shown = pin.path.relative_to(store.root)
    assert done.kept[f"demo@{three[1]}"] == f"used by the training run r1 ({shown} says so)"
    pin.path.unlink()
    prune(store.root, remove=True)
    assert readable(store) == [three[2]]


def test_a_set_that_cannot_be_written_to_is_used_without_a_note(tmp_path, caplog):
    (tmp_path / "pins").write_text("no folder")
    put_pin(tmp_path / "0.json", "0", "somebody")
    assert "its use is not noted" in caplog.text


def test_other_sets_keep_their_newest_version(store, three):
    other = add_version(store, usual_pairs(), name="other", plan="other0")
    prune(store.root, remove=True)
    assert readable(store, "other") == [other]


def test_a_plan_that_was_left_behind_by_a_later_run_of_its_set_does_not_stay(store, three):
    start_run(store, "demo", "edited since")
    store.put(layout.plan("edited since", "stage-000"), {"fates": {}, "reasons": {}})
    add_version(store, usual_pairs(), plan="plan9", spec={"steps": STEPS[:1], "shards": {}})
    done = prune(store.root, remove=True, signals=True)
    assert not done.notes
    assert store.get(layout.plan("edited since", "stage-000")) is None


def test_what_an_unfinished_plan_made_stays(store, three):
    start_run(store, "demo", "plan0")
    shard = put_table(store, pa.table({"key": ["a"]}))
    start_run(store, "demo", "half")
    store.put(layout.plan("half", "shard-000000"), {"parquet": shard.record()})
    prune(store.root, remove=True, grace_s=-1)
    assert readable(store) == [three[2], three[0]]
    assert store.path(shard.name).exists()


def test_the_version_that_manifest_json_points_at_stays_after_a_kill_at_the_very_end_of_a_newer_run(store, three):
    number = start_run(store, "demo", "plan0")
    store.put(layout.finished(number), {"name": "demo", "version": three[0], "plan": "plan0", "at": 2e9})
    kept = prune(store.root, remove=True).kept
    assert kept == {f"demo@{three[0]}": "the newest", f"demo@{three[2]}": "manifest.json is a copy of it"}


def test_a_plan_that_made_a_kept_version_too_stays_whole(store, three):
    number = start_run(store, "demo", "plan0")
    store.put(layout.finished(number), {"name": "demo", "version": three[0], "plan": "plan0", "at": 2e9})
    pointed = store.path(layout.curated("demo", "manifest.json"))
    pointed.write_bytes(manifest_path(store, three[0]).read_bytes())
    prune(store.root, remove=True)
    assert readable(store) == [three[0]]
    assert store.get(layout.plan("plan0", "shard-000000")) is not None
    assert store.get(layout.plan("plan1", "shard-000000")) is None


def test_decisions_of_the_user_stay(store, three):
    store.put(layout.plan("plan0", "retry-0001"), {"classes": []})
    store.put(layout.plan("plan0", "given-up-00000-000000"), {"part": "00000-000000"})
    prune(store.root, remove=True)
    assert store.get(layout.plan("plan0", "retry-0001")) == {"classes": []}
    assert store.get(layout.plan("plan0", "given-up-00000-000000")) is not None


def test_signals_stay_unless_asked_for(store, three):
    kept = add_downloads(store, usual_pairs())
    old = add_downloads(store, usual_pairs()[:3], OTHER_FINGERPRINT)
    prune(store.root, remove=True, grace_s=-1)
    assert store.path(old.name).exists()
    done = prune(store.root, remove=True, signals=True)
    assert [name.rsplit("/", 1)[1] for name in done.sidecars] == [f"download-{OTHER_FINGERPRINT[:16]}"]
    assert not store.path(old.name).exists()
    assert store.path(kept.name).exists()
    assert store.get(layout.sidecar("00000-000000", "download", FINGERPRINT, 0)) is not None


def test_signals_that_cannot_be_told_apart_stay(store, three):
    """Where no sidecar has the fingerprint that the manifest names, an operator's sidecars differ from part to part."""
    riding = add_downloads(store, usual_pairs(), OTHER_FINGERPRINT)
    done = prune(store.root, remove=True, signals=True)
    assert done.sidecars == []
    assert store.path(riding.name).exists()


def test_signals_stay_while_a_run_is_unfinished(store, three):
    add_downloads(store, usual_pairs())
    old = add_downloads(store, usual_pairs()[:3], OTHER_FINGERPRINT)
    start_run(store, "demo", "half")
    done = prune(store.root, remove=True, signals=True)
    assert store.path(old.name).exists()
    assert "a run has not finished" in done.text()


def test_left_over_files_go_when_they_are_old(store, three):
    table = put_table(store, pa.table({"x": [1]}))
    young, old = store.path("tmp/young.tar"), store.path("tmp/old.tar")
    folder = store.path("tmp/folder")
    folder.mkdir()
    manifest = store.path("curated/demo/.manifest-7.json")
    for path in (young, old, folder / "spill", manifest):
        path.write_bytes(b"half a file")
    yesterday = time.time() - 86_400
    for path in (old, folder / "spill", folder, manifest, store.path(table.name)):
        os.utime(path, (yesterday, yesterday))
    prune(store.root, remove=True)
    assert young.exists()
    assert not old.exists()
    assert not manifest.exists()
    assert not folder.exists()
    assert not store.path(table.name).exists()


def test_a_file_that_a_worker_may_still_commit_stays(store, three):
    table = put_table(store, pa.table({"x": [1]}))
    prune(store.root, remove=True)
    assert store.path(table.name).exists()


def test_nothing_is_pruned_while_a_run_holds_the_store(store, three):
    before = files(store)
    with store.lock(), pytest.raises(StoreError, match="a run is using it"):
        prune(store.root, remove=True)
    assert files(store) == before


def test_a_run_waits_until_prune_is_done(store, three):
    got = threading.Event()

    def run() -> None:
        with store.lock():
            got.set()

    with store.lock(exclusive=True):
        waiting = threading.Thread(target=run)
        waiting.start()
        assert not got.wait(0.05)
    assert got.wait(10)
    waiting.join()


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


def test_killed_anywhere_it_leaves_a_store_that_reads_well(tmp_path, monkeypatch):
    """Stopped before each of its removals in turn, then run again: always the same end."""
    unlink = Path.unlink
    source = new_store(tmp_path / "source")
    made = [add_version(source, [*usual_pairs(), *(pair(50 + i) for i in range(n))], plan=f"p{n}") for n in (0, 1)]
    add_downloads(source, usual_pairs()[:3], OTHER_FINGERPRINT)
    add_downloads(source, usual_pairs())
    ends = set()
    for point in range(100):
        subprocess.run(["cp", "-a", source.root, tmp_path / str(point)], check=True)  # hard links stay hard links
        store = Store(tmp_path / str(point))
        left = point

        def counted(path: Path, missing_ok: bool = False) -> None:
            nonlocal left
            if "tmp" not in path.parts[-2:-1]:
                left -= 1
                if left < 0:
                    raise Killed
            unlink(path, missing_ok)

        monkeypatch.setattr(Path, "unlink", counted)
        killed = False
        try:
            prune(store.root, remove=True, signals=True)
        except Killed:
            killed = True
        monkeypatch.setattr(Path, "unlink", unlink)
        assert readable(store) in ([made[1]], [made[1], made[0]])
        prune(store.root, remove=True, signals=True, grace_s=-1)
        assert readable(store) == [made[1]]
        ends.add(frozenset(files(store)))
        if not killed:
            break
    assert point > 10
    assert not killed
    assert len(ends) == 1


def test_a_pruned_version_comes_back_byte_for_byte_when_its_specification_runs_again(tmp_path):
    rows = [{"url": f"http://h.example/{n}", "caption": f"caption {n}", "clip_score": n / 100} for n in range(100)]
    source = {"table": write_table(tmp_path / "pairs.parquet", rows)}
    shards = {"format": "parquet", "rows": 30}
    spec = {"name": "real", "store": str(tmp_path / "store"), "source": source, "shards": shards}
    first = run_job(spec | {"steps": [{"keep": "clip_score > 0.2"}]})
    manifest = first.manifest.read_bytes()
    second = run_job(spec | {"steps": [{"keep": "clip_score > 0.5"}]})
    prune(tmp_path / "store", remove=True, signals=True)
    assert verify(second.manifest).ok
    assert [v.version for v in versions(Store(tmp_path / "store"), "real")] == [second.version]
    again = run_job(spec | {"steps": [{"keep": "clip_score > 0.2"}]})
    assert again.manifest.read_bytes() == manifest
    assert verify(again.manifest).ok
