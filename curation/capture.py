"""Sources that bring their pictures: each file is read once into tars of the store, then ingested as a table.

What is kept of a picture is decided by `to_stored`, as after a download: no metadata, JPEG, PNG or WebP, full size.
"""

import hashlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from curation.execution.executor import Executor, run_each
from curation.fetch.isolation.isolated import IsolatedDecoder
from curation.fetch.pictures.picture_form import AS_THEY_COME
from curation.fetch.pictures.readiness import make_ready
from curation.fetch.pictures.to_stored import Stored, to_stored
from curation.forget.at_capture import forgotten_capture
from curation.forget.tombstones import all_tombstones
from curation.ingest import MEMBER, OURS, Member, Snapshot, Staging, find_snapshot, ingest, load_parts
from curation.operator import OK
from curation.sources.source import CapturedRow, CapturedSource
from curation.stage import CAPTURE, OperatorStep
from curation.storage import layout, out_of_core, sidecars
from curation.storage.pictures import PictureWriter
from curation.storage.sidecars import COMPUTED, ERROR, LOCATIONS, STATUS, Sidecar
from curation.storage.store import FileRef, Store, digest
from curation.storage.tables import put_table, read_table, runs_of
from schemas.pixels import DecodeError

_FIXED = {
    "url": pa.string(),
    "caption": pa.string(),
    "own_key": pa.string(),
    "picture_sha256": pa.string(),
    "failure": pa.string(),
    "origin": pa.string(),
    "stored_sha256": pa.string(),
    "original_width_px": pa.int32(),
    "original_height_px": pa.int32(),
    "tar": pa.string(),
    "offset": pa.int64(),
    "length": pa.int64(),
}


@dataclass(frozen=True)
class _CaptureTask:
    store: Store
    source: CapturedSource
    index: int
    name: str


def capture_source(
    store: Store,
    source: CapturedSource,
    identity: dict[str, Any],
    step: OperatorStep,
    rows_per_part: int,
    executor: Callable[[], Executor],
) -> Snapshot:
    """Capture what the store lacks of a source, ingest it, and give its parts their pictures."""
    about = [identity["kind"], identity["columns"], {n: str(t) for n, t in source.extra.items()}, step.base_fingerprint]
    names = [digest([*about, file.sha256]) for file in source.files]
    missing = [i for i, name in enumerate(names) if store.get(layout.capture(name)) is None]
    if missing:
        _capture_files(executor(), [_CaptureTask(store, source, i, names[i]) for i in missing])
    records = [store.get(layout.capture(name)) for name in names]
    files = [FileRef(**record["rows"]) for record in records]
    tars = {ref["name"]: FileRef(**ref) for record in records for ref in record["tars"]}
    snapshot = find_snapshot(store, identity)
    if snapshot is None:
        relation = _relation(store, files, source, identity["limit"])
        snapshot = ingest(store, Staging(identity, relation, dict(source.extra), captured=True), rows_per_part)
    _give_pictures(store, snapshot, step, files, tars)
    return snapshot


def _capture_files(executor: Executor, tasks: list[_CaptureTask]) -> None:
    for _ in run_each(executor, _capture, ((task.source.files[task.index].path, task) for task in tasks)):
        pass


def _capture(task: _CaptureTask, **_: Any) -> None:
    """Read one file of a source and commit its rows and pictures."""
    pictures = PictureWriter(task.store)
    try:
        rows = _captured_rows(task, pictures)
        locations, tars = pictures.finish(None)
    finally:
        pictures.discard()
    where = {place["row"]: place for place in read_table(task.store, locations).to_pylist()}
    for place, row in enumerate(rows):
        row |= {OURS + name: where[place][name] if place in where else None for name in ("tar", "offset", "length")}
    fields = [pa.field(OURS + name, kind) for name, kind in _FIXED.items()]
    schema = pa.schema([*fields, *(pa.field(name, kind) for name, kind in task.source.extra.items())])
    ref = put_table(task.store, pa.Table.from_pylist(rows, schema=schema))
    record = {"rows": ref.record(), "tars": [tar.record() for tar in tars]}
    task.store.put(layout.capture(task.name), record)


def _captured_rows(task: _CaptureTask, pictures: PictureWriter) -> list[dict[str, Any]]:
    """The rows of one file, in their order; its pictures are as little to be trusted as those of the web."""
    rows: dict[int, dict[str, Any]] = {}
    tombstones = all_tombstones(task.store)
    arrivals = (
        ((place, row), None if row.failure else row.picture) for place, row in enumerate(task.source.read(task.index))
    )
    with closing(IsolatedDecoder(to_stored, prepare=partial(make_ready, AS_THEY_COME))) as decoder:
        for (place, row), picture in decoder.stream(arrivals):
            ours = _captured(row, picture)
            forgotten = forgotten_capture(tombstones, ours)
            rows[place] = ours if forgotten is None else forgotten
            if isinstance(picture, Stored) and forgotten is None:
                pictures.add(place, ours[f"{OURS}picture_sha256"], picture.bytes)
    return [rows[place] for place in sorted(rows)]


def _captured(row: CapturedRow, picture: Stored | DecodeError | None) -> dict[str, Any]:
    """One row as it stands in the capture's table."""
    ours: dict[str, Any] = {"url": row.url, "caption": row.caption, "own_key": row.key, "origin": row.origin}
    if row.failure is not None:
        ours["failure"] = _reason(row, row.failure.status, row.failure.error)
    elif row.picture is not None:
        ours["picture_sha256"] = hashlib.sha256(row.picture).hexdigest()
        if isinstance(picture, DecodeError):
            ours["failure"] = _reason(row, picture.status, str(picture))
        elif picture is not None:
            ours["stored_sha256"] = hashlib.sha256(picture.bytes).hexdigest()
            ours["original_width_px"] = picture.original_width_px
            ours["original_height_px"] = picture.original_height_px
    return {OURS + name: value for name, value in ours.items()} | dict(row.extra)


def _reason(row: CapturedRow, status: str, said: str) -> str:
    """Why a row failed, with the file that it came from: what has neither URL nor picture has no other name."""
    named = said if said.startswith(row.origin) else f"{row.origin}: {said}"
    return f"{status}: {named}"


def _relation(store: Store, files: list[FileRef], source: CapturedSource, limit: int | None) -> str:
    paths = ", ".join("'" + str(store.path(file.name)).replace("'", "''") + "'" for file in files)
    ours = ", ".join(OURS + name for name in ("url", "caption", "own_key", "picture_sha256", "failure", "origin"))
    extra = "".join(', "' + name.replace('"', '""') + '"' for name in source.extra)
    cut = f" LIMIT {limit}" if limit is not None else ""
    return f"SELECT {ours}{extra} FROM read_parquet([{paths}]){cut}"


def _give_pictures(
    store: Store, snapshot: Snapshot, step: OperatorStep, files: list[FileRef], tars: dict[str, FileRef]
) -> None:
    """Commit the next generation of the capture's sidecar for every part that lacks pictures of this source."""
    lacking = [member.part for member in snapshot.parts if _lacks(store, member, step)]
    if not lacking:
        return
    with out_of_core.database(store) as database:
        load_parts(store, database, lacking)
        database.execute("CREATE TABLE numbers (part VARCHAR, slot INTEGER)")
        database.executemany("INSERT INTO numbers VALUES (?, ?)", [[part.name, i] for i, part in enumerate(lacking)])
        columns = ", ".join(f"{OURS}{n} AS {n}" for n in _FIXED)
        database.execute(
            f"CREATE TABLE captured AS SELECT {columns} FROM read_parquet($files)",
            {"files": [str(store.path(file.name)) for file in files]},
        )
        reader = database.sql(
            """
            SELECT slot, row::INTEGER AS row, captured.* FROM pool JOIN numbers USING (part)
            JOIN (SELECT coalesce(nullif(url, ''), picture_sha256, '') || chr(10) || coalesce(caption, '') AS named, *
                  FROM captured WHERE failure IS NULL AND stored_sha256 IS NOT NULL) AS captured
            ON pool.key = coalesce(own_key, substr(sha256(named), 1, 32))
            QUALIFY row_number() OVER (PARTITION BY slot, row ORDER BY picture_sha256, tar, "offset") = 1
            ORDER BY slot, row
            """
        ).to_arrow_reader(50_000)
        for slot, table in runs_of(reader, "slot"):
            _commit_pictures(store, lacking[slot].name, lacking[slot].rows, step, table, tars)


def _lacks(store: Store, member: Member, step: OperatorStep) -> bool:
    """Whether a row of the snapshot has no picture; others of the part may have theirs from other sources."""
    sidecar = sidecars.latest(store, member.part.name, CAPTURE, step.base_fingerprint)
    if sidecar is None:
        return True
    computed = sidecars.read_values(store, sidecar, [COMPUTED])[COMPUTED].to_numpy()
    is_member = read_table(store, member.file, [MEMBER])[MEMBER].to_numpy()
    return bool((is_member & ~computed).any())


def _commit_pictures(
    store: Store, part: str, count: int, step: OperatorStep, found: pa.Table, tars: dict[str, FileRef]
) -> None:
    schema = sidecars.values_schema(step.values)
    while True:
        old = sidecars.latest(store, part, CAPTURE, step.base_fingerprint)
        base = sidecars.read_values(store, old) if old else _nothing(count, schema)
        have = base[COMPUTED].to_numpy()
        new = found.filter(pa.array(~have[found["row"].to_numpy()]))
        if not new.num_rows:
            return
        values = {COMPUTED: pa.array([True] * new.num_rows), STATUS: pa.array([OK] * new.num_rows)}
        values |= {ERROR: pa.nulls(new.num_rows, pa.string()), "sha256": new["picture_sha256"]}
        values |= {name: new[name] for name in ("stored_sha256", "original_width_px", "original_height_px")}
        places = np.arange(count)
        places[new["row"].to_numpy()] = count + np.arange(new.num_rows)
        joined = pa.concat_tables([base.cast(schema), pa.table(values).select(schema.names).cast(schema)])
        before = sidecars.read_locations(store, old) if old else LOCATIONS.empty_table()
        kept = new.filter(new["tar"].is_valid())  # a forgotten picture lies nowhere
        where = pa.concat_tables([before, kept.select(LOCATIONS.names).cast(LOCATIONS)]).sort_by("row")
        used = {ref.name: ref for ref in (old.tars if old else ())} | {
            n: tars[n] for n in kept["tar"].unique().to_pylist()
        }
        sidecar = Sidecar(
            part,
            CAPTURE,
            step.base_fingerprint,
            old.generation + 1 if old else 0,
            put_table(store, joined.take(pa.array(places))),
            put_table(store, where),
            tars=tuple(used.values()),
        )
        if sidecars.commit(store, sidecar):
            return


def _nothing(count: int, schema: pa.Schema) -> pa.Table:
    columns = [pa.array(np.zeros(count, bool)) if f.name == COMPUTED else pa.nulls(count, f.type) for f in schema]
    return pa.table(columns, schema=schema)
