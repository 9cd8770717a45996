"""A small finished data set, written with the real writers: what tests of reading read."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.fetch.ledger import LEDGER
from curation.storage import layout, sidecars
from curation.storage.pool import Part, extend_pool, read_pool
from curation.storage.sidecars import Sidecar
from curation.storage.store import FileRef, Store, digest
from curation.storage.tables import put_table
from schemas.manifest import Manifest
from schemas.shard import ShardWriter

FINGERPRINT = "ab" * 32
STEPS: list[dict[str, Any]] = [
    {"name": "keep", "parameters": "length(caption) >= 3"},
    {"name": "download", "parameters": {"shortest_side_px": 256}},
    {"name": "keep", "parameters": "width_px >= 64", "id": "big_enough"},
    {"name": "dedup", "parameters": {"by": "phash", "within": 4}},
]
LABELS = ["steps[0] keep", "steps[1] download", "big_enough", "steps[3] dedup"]
SAMPLES = pa.schema(
    {
        "key": pa.string(),
        "url": pa.string(),
        "caption": pa.string(),
        "licence": pa.string(),
        "width_px": pa.int32(),
        "clip_score": pa.float32(),
        "phash": pa.uint64(),
        "status": pa.string(),
        "error": pa.string(),
        "fate": pa.string(),
        "fate_step": pa.string(),
        "fate_reason": pa.string(),
        "duplicate_of": pa.string(),
    }
)
ADDED_BY = dict.fromkeys(("width_px", "clip_score", "phash", "status", "error"), LABELS[1])


def key_of(number: int) -> str:
    """The key of the n-th row."""
    return hashlib.sha256(f"http://h.example/{number}.jpg\ncaption {number}".encode()).hexdigest()[:32]


def pair(number: int, step: int | None = None, **more: Any) -> dict[str, Any]:
    """The n-th row; `step` is the index of the step where it ended, None for a curated one."""
    row: dict[str, Any] = dict.fromkeys(SAMPLES.names)
    row |= {"key": key_of(number), "url": f"http://h.example/{number}.jpg", "caption": f"caption {number}"}
    row |= {"licence": "CC0", "fate": "curated", "fate_step": "", "fate_reason": ""}
    if step != 0:
        row |= {"width_px": 10 * number, "clip_score": number / 100, "phash": number, "status": "ok"}
    if step == 1:
        row |= {"width_px": None, "clip_score": None, "phash": None, "status": "http_404", "error": "Not Found"}
    if step is not None:
        fate = "failed" if step == 1 else "dropped"
        reason = "http_404: Not Found" if step == 1 else str(STEPS[step]["parameters"])
        row |= {"fate": fate, "fate_step": LABELS[step], "fate_reason": reason}
    return row | more


def usual_pairs() -> list[dict[str, Any]]:
    """Twelve rows: seven curated, five with other fates."""
    rows = [pair(n) for n in range(20, 27)]
    rows += [pair(1, 0), pair(2, 1), pair(3, 1), pair(4, 2)]
    return [*rows, pair(30, 3, duplicate_of=key_of(20))]


def new_store(folder: Path) -> Store:
    """An empty store."""
    return Store.open(folder / "store")


def start_run(store: Store, name: str, plan: str) -> int:
    """Record that a run has started."""
    number = 0
    while not store.put(layout.run(number), {"name": name, "plan": plan}):
        number += 1
    return number


def add_version(
    store: Store, rows: list[dict[str, Any]], *, name: str = "demo", plan: str = "plan0", **change: Any
) -> str:
    """Write one finished version as a run does; `change` replaces fields of the manifest."""
    number = start_run(store, name, plan)
    rows = sorted(rows, key=lambda row: row["key"])
    samples = put_table(store, pa.Table.from_pylist(rows, schema=SAMPLES))
    curated = sorted((row for row in rows if row["fate"] == "curated"), key=lambda row: row["key"][::-1])
    shards = [_shard(store, curated[start : start + 4]) for start in range(0, len(curated), 4)]
    version = digest([name, samples.sha256, change.get("spec")])[:16]
    manifest = _manifest(name, version, rows, samples, shards, change)
    for entry, (parquet, tar, _) in zip(manifest.shards, shards, strict=True):
        _link(store, name, parquet, entry.parquet)
        _link(store, name, tar, str(entry.tar))
    for sample in manifest.samples:
        _link(store, name, samples, sample.parquet)
    sizes = {Path(str(entry.tar)).name: entry.rows for entry in manifest.shards}
    _put_text(store, layout.curated(name, f"{version}/sizes.json"), json.dumps(sizes))
    _put_text(store, layout.curated(name, f"{version}/README.md"), f"# {name}\n")
    text = manifest.model_dump_json(indent=1)
    _put_text(store, layout.curated(name, f"{version}.json"), text)
    for place, (parquet, tar, count) in enumerate(shards):
        record = {"name": f"shard-{place:06d}", "rows": count, "holdout": False}
        record |= {"parquet": parquet.record(), "tar": tar.record()}
        store.put(layout.plan(plan, f"shard-{place:06d}"), record)
    store.put(layout.plan(plan, "samples"), [[samples.record(), len(rows)]])
    parts = [sidecars.latest(store, part.name, "download", FINGERPRINT) for part in read_pool(store).parts]
    store.put(layout.plan(plan, "ledgers"), [ref.name for part in parts if part for ref in part.ledgers])
    store.put(layout.finished(number), {"name": name, "version": version, "plan": plan, "at": 1_700_000_000.0 + number})
    store.path(layout.curated(name, "manifest.json")).write_text(text)
    return version


def add_downloads(store: Store, rows: list[dict[str, Any]], fingerprint: str = FINGERPRINT) -> FileRef:
    """One part with these rows, its download's sidecar and ledger; returns the sidecar's values."""
    pool = read_pool(store)
    part = f"{pool.next_record:05d}-000000"
    file = put_table(store, pa.table({"key": [row["key"] for row in rows]}))
    assert extend_pool(store, pool, [Part(part, len(rows), file)], [])
    lines = [
        dict.fromkeys(LEDGER.names)
        | {"key": row["key"], "url": row["url"], "host": "h.example", "status": row["status"], "attempts": 1}
        for row in rows
        if row["status"]
    ]
    values = put_table(store, pa.table({"part": [part], "fingerprint": [fingerprint]}))
    ledger = put_table(store, pa.Table.from_pylist(lines, schema=LEDGER))
    assert sidecars.commit(store, Sidecar(part, "download", fingerprint, 0, values, ledgers=(ledger,)))
    return values


def manifest_path(store: Store, version: str, name: str = "demo") -> Path:
    """Where a version's manifest lies."""
    return store.path(layout.curated(name, f"{version}.json"))


def _shard(store: Store, rows: list[dict[str, Any]]) -> tuple[FileRef, FileRef, int]:
    wanted = pa.schema([SAMPLES.field(n) for n in ("key", "url", "caption", "licence", "width_px")])
    parquet = put_table(store, pa.Table.from_pylist(rows, schema=wanted))
    with store.new_file(".tar") as file, open(file.path, "wb") as stream, ShardWriter(stream) as tar:
        for row in rows:
            tar.add(row["key"], {"jpg": row["key"].encode(), "txt": row["caption"].encode(), "json": b"{}"})
    return parquet, file.ref, len(rows)


def _manifest(
    name: str,
    version: str,
    rows: list[dict[str, Any]],
    samples: FileRef,
    shards: list[tuple[FileRef, FileRef, int]],
    change: dict[str, Any],
) -> Manifest:
    entries = [
        {
            "tar": f"{version}/shard-{place:06d}.tar",
            "parquet": f"{version}/shard-{place:06d}.parquet",
            "rows": count,
            "tar_sha256": tar.sha256,
            "parquet_sha256": parquet.sha256,
            "tar_bytes": tar.bytes,
            "parquet_bytes": parquet.bytes,
        }
        for place, (parquet, tar, count) in enumerate(shards)
    ]
    columns = [
        {"name": n, "type": str(SAMPLES.field(n).type), "meaning": f"what {n} is", "step": ADDED_BY.get(n, "source")}
        | {"in_shards": n not in ("clip_score", "error", "phash", "status")}
        for n in SAMPLES.names
        if not n.startswith("fate") and n != "duplicate_of"
    ]
    record = {
        "name": name,
        "version": version,
        "rows": sum(count for _, _, count in shards),
        "pool": len(rows),
        "columns": columns,
        "shards": entries,
        "samples": [
            {
                "parquet": f"{version}/samples-000000.parquet",
                "rows": len(rows),
                "parquet_sha256": samples.sha256,
                "parquet_bytes": samples.bytes,
            }
        ],
        "funnel": _funnel(rows),
        "spec": {"steps": STEPS, "shards": {"rows": 4, "seed": 0}},
        "operators": {LABELS[1]: FINGERPRINT},
    }
    return Manifest.model_validate(record | change)


def _funnel(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    alive = len(rows)
    funnel = [{"step": "source", "kind": "source", "rows_in": alive, "rows_out": alive, "reason": ""}]
    for step, label in zip(STEPS, LABELS, strict=True):
        gone = sum(row["fate_step"] == label for row in rows)
        reason = "" if step["name"] == "download" else str(step["parameters"])
        entry = {"step": label, "kind": step["name"], "rows_in": alive, "rows_out": alive - gone, "reason": reason}
        funnel.append(entry)
        alive -= gone
    return funnel


def _put_text(store: Store, name: str, text: str) -> None:
    with store.new_file(Path(name).suffix) as file:
        file.path.write_text(text)
    store.link(store.path(file.ref.name), name)


def _link(store: Store, name: str, ref: FileRef, path: str) -> None:
    store.link(store.path(ref.name), layout.curated(name, path))
