"""Everything known of one pair, step by step: what each step saw of it, and what became of it."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.analytics.answer import json_value
from curation.analytics.query import connect, question
from curation.forget.tombstones import FORGET, Request, requests_for
from curation.storage.store import Store
from curation.versions import Version, names, versions
from schemas import columns as c
from schemas.errors import InputError
from schemas.manifest import Manifest, read_manifest
from schemas.pins import read_pins

_KEY = re.compile(r"[0-9a-f]{1,32}\Z")
_FATE = (c.FATE.name, c.FATE_STEP.name, c.FATE_REASON.name, c.DUPLICATE_OF.name)
SOURCE = "source"


@dataclass(frozen=True)
class StepSeen:
    """What one step saw of a pair: `outcome` is passed, dropped, failed or not reached."""

    step: str
    kind: str
    outcome: str
    reason: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Place:
    """What became of a pair in one version; shard and position where it is curated."""

    version: str
    tags: tuple[str, ...]
    fate: str
    fate_step: str
    parquet: str | None = None
    tar: str | None = None
    position: int | None = None
    holdout: bool | None = None
    used_by: tuple[str, ...] = ()  # training runs, and sets that are compared against the version


@dataclass(frozen=True)
class Explanation:
    """One pair in one data set, as the newest version that has it tells."""

    key: str
    name: str
    version: str
    source: Mapping[str, Any]
    steps: tuple[StepSeen, ...]
    fate: str
    fate_step: str
    fate_reason: str
    duplicate_of: str | None
    places: tuple[Place, ...]
    downloads: tuple[Mapping[str, Any], ...]
    forgotten: tuple[Request, ...] = ()  # the requests that name the pair, its URL or its picture

    def record(self) -> dict[str, Any]:
        """The explanation as JSON values."""
        return asdict(self)

    def text(self) -> str:
        """The explanation for people."""
        lines = [f"{self.key}  in {self.name}@{self.version}", ""]
        lines += [f"  {name}: {_shown(value)}" for name, value in self.source.items()]
        lines.append("")
        for step in self.steps:
            why = f": {step.reason}" if step.reason and step.outcome in ("dropped", "failed") else ""
            lines.append(f"  {step.step}: {step.outcome}{why}")
            lines += [f"      {name} = {_shown(value)}" for name, value in step.values.items() if value is not None]
        lines += ["", f"  fate: {self.fate}" + (f" at {self.fate_step}: {self.fate_reason}" if self.fate_step else "")]
        if self.duplicate_of:
            lines.append(f"  duplicate of: {self.duplicate_of}")
        lines += ["", *(f"  {_place_text(self.name, place)}" for place in self.places)]
        lines += [f"  fetched: {_fetch_text(line)}" for line in self.downloads]
        lines += [f"  forgotten on {request.text()}" for request in self.forgotten]
        return "\n".join(lines)


def explain(store_path: Path | str, key: str, name: str | None = None) -> list[Explanation]:
    """What is known of a key, or of the only key that begins so: one explanation per data set that has it.

    Raises InputError for a key that no version has.
    """
    if not _KEY.match(key):
        raise InputError(f"explain {key}: a key is 32 lower-case hex digits, or how one begins; `sql` shows keys")
    store = Store.existing(store_path)
    sets = [name] if name is not None else names(store)
    found = [e for e in (_explained(store, each, key) for each in sets) if e is not None]
    if not found:
        where = f"of {', '.join(sets)} " if sets else ""
        raise InputError(
            f"explain {key}: no version {where}has such a key in {store.root}; "
            'keys are in samples: pairmill sql "SELECT key, caption FROM samples LIMIT 10"'
        )
    return found


def _explained(store: Store, name: str, key: str) -> Explanation | None:
    """The explanation by the newest version that has the key; None where none has."""
    row, first, places = None, None, []
    for version in versions(store, name):
        with connect(store.root, name, version.version, downloads=False) as connection:
            found = _row(connection, name, key if row is None else row["key"])
            if found is None:
                continue
            if row is None:
                row, first = found, version
            places.append(_place(version, found))
    if row is None or first is None:
        return None
    manifest = read_manifest(first.path)
    fate, step, reason, duplicate_of = (row[column] for column in _FATE)
    return Explanation(
        row["key"],
        name,
        first.version,
        {column: row[column] for column in _columns_of(manifest, SOURCE, row)},
        tuple(_steps(manifest, row)),
        fate,
        step or "",
        reason or "",
        duplicate_of,
        tuple(places),
        tuple(_downloads(store, name, first.version, row)),
        tuple(requests_for(store, row["key"])),
    )


def _row(connection: duckdb.DuckDBPyConnection, name: str, key: str) -> dict[str, Any] | None:
    rows = _records(connection, "explain_row", {"first": key, "end": key + "g"})  # 'g' follows every hex digit
    if len(rows) > 1:
        shown = ", ".join(row["key"] for row in rows)
        raise InputError(f"explain {key}: several keys of {name} begin so, as {shown}; write more of it")
    return rows[0] if rows else None


def _place(version: Version, row: Mapping[str, Any]) -> Place:
    place = Place(version.version, version.tags, row[c.FATE.name], row[c.FATE_STEP.name] or "")
    if place.fate != "curated":
        return place
    key = pa.scalar(row["key"], pa.string())
    for shard in read_manifest(version.path).shards:
        keys = pq.read_table(version.path.parent / shard.parquet, columns=[c.KEY.name])[c.KEY.name]
        position = pc.index(keys, key).as_py()
        if position >= 0:
            used_by = tuple(pin.by for pin in read_pins(version.path.parent) if pin.version == version.version)
            place = replace(place, used_by=used_by, holdout=shard.holdout)
            return replace(place, parquet=shard.parquet, tar=shard.tar, position=position)
    return place


def _downloads(store: Store, name: str, version: str, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    if not row[c.URL.name]:
        return []
    with connect(store.root, name, version) as connection:
        return _records(connection, "explain_downloads", {"url": row[c.URL.name]})


def _steps(manifest: Manifest, row: Mapping[str, Any]) -> list[StepSeen]:
    """Every step of the funnel with the values that it added or looked at."""
    labels = [entry.step for entry in manifest.funnel]
    if row[c.FATE_STEP.name] == FORGET:
        gone = StepSeen(FORGET, FORGET, row[c.FATE.name], row[c.FATE_REASON.name] or "", {})
        return [gone, *(StepSeen(e.step, e.kind, "not reached", e.reason, {}) for e in manifest.funnel[1:])]
    ended = labels.index(row[c.FATE_STEP.name]) if row[c.FATE_STEP.name] in labels else len(labels)
    declared: Sequence[Any] = [None, *manifest.spec.get("steps", [])]  # the funnel begins with the source
    seen = []
    for place, entry in enumerate(manifest.funnel):
        if place == 0 and ended != 0:
            continue
        outcome = "passed" if place < ended else row[c.FATE.name] if place == ended else "not reached"
        reason = (row[c.FATE_REASON.name] or "") if place == ended else entry.reason
        used = _columns_of(manifest, entry.step, row) if place else []
        if place and not used and place < len(declared):
            used = _mentioned(declared[place], row)
        values = {} if place > ended else {name: row[name] for name in used}
        seen.append(StepSeen(entry.step, entry.kind, outcome, reason, values))
    return seen


def _columns_of(manifest: Manifest, step: str, row: Mapping[str, Any]) -> list[str]:
    return [column.name for column in manifest.columns if column.step == step and column.name in row]


def _mentioned(step: Any, row: Mapping[str, Any]) -> list[str]:
    """The columns whose names stand in a step's declaration."""
    words = set(re.findall(r"\w+", json.dumps(step, ensure_ascii=False)))
    return [name for name in row if name in words and name not in (*_FATE, c.KEY.name)]


def _records(connection: duckdb.DuckDBPyConnection, name: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    result = connection.execute(question(name), dict(values))
    names = [column[0] for column in result.description or []]
    return [dict(zip(names, map(json_value, row), strict=True)) for row in result.fetchall()]


def _place_text(name: str, place: Place) -> str:
    label = f"{name}@{place.version}" + (f" ({', '.join(place.tags)})" if place.tags else "")
    if place.fate != "curated":
        return f"{label}: {place.fate} at {place.fate_step}"
    held = ", held out" if place.holdout else ""
    used = "".join(f"; used by {user}" for user in place.used_by)
    return f"{label}: row {place.position} of {place.tar or place.parquet}{held}{used}"


def _fetch_text(line: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value}" for name, value in line.items() if name not in ("key", "url") and value is not None
    )


def _shown(value: Any) -> str:
    short = float(f"{value:.7g}") if isinstance(value, float) else value  # float32 has no more digits
    text = short if isinstance(short, str) else json.dumps(short, ensure_ascii=False)
    return "".join(ch if ch.isprintable() else " " for ch in text)
