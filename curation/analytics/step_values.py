"""Where the values of a finished version's steps lie in the pool: their sidecars, by the manifest alone.

A plan knows it, too, but a version can be looked at where its source and its specification are gone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from curation.operators.derive import Derive
from curation.part_rows import values_digest
from curation.plan import CAPTURE_VERSION
from curation.registry import OperatorRef, operator_names
from curation.sql_expression import used_columns
from curation.stage import CAPTURE
from curation.storage import sidecars
from curation.storage.sidecars import Sidecar
from curation.storage.store import FileRef, Store, digest
from curation.storage.tables import read_table
from schemas.columns import CAPTION, IMAGE, KEY, STORED_SHA256, URL
from schemas.manifest import Manifest

_OF_PARTS = {KEY.name, URL.name, CAPTION.name}


@dataclass(frozen=True)
class StepValues:
    """An operator of a version, its fingerprint, and the columns of the source whose values are in it besides."""

    operator: str
    fingerprint: str
    rides_on: tuple[str, ...] = ()

    def sidecar(self, store: Store, member: Mapping[str, Any]) -> Sidecar | None:
        """What is committed of it for a part of the version's snapshot; None where nothing is."""
        fingerprint = self.fingerprint
        if self.rides_on:
            before = member.get("digests", {})  # of a purge
            table = read_table(store, FileRef(**member["file"]), list(self.rides_on))
            riding = {column: before.get(column) or values_digest(table[column]) for column in self.rides_on}
            fingerprint = digest([fingerprint, riding])
        return sidecars.latest(store, member["part"]["name"], self.operator, fingerprint)


def values_of(manifest: Manifest, step: str) -> StepValues:
    """The values of a step, which must be an operator of the version."""
    place = _places(manifest)[step]
    riding = tuple(sorted(set(_rides_on(manifest, place))))
    return StepValues(manifest.funnel[place].kind, manifest.operators[step], riding)


def pictures_of(manifest: Manifest) -> StepValues:
    """The values of the step that brought the pictures; without one, of the source that came with them."""
    step = _brings_pictures(manifest, len(manifest.funnel))
    if step is None:
        return StepValues(CAPTURE, digest({"operator": CAPTURE, "version": CAPTURE_VERSION}))
    return values_of(manifest, step)


def _places(manifest: Manifest) -> dict[str, int]:
    return {entry.step: place for place, entry in enumerate(manifest.funnel)}


def _brings_pictures(manifest: Manifest, before: int) -> str | None:
    """The last step in front of that place which stores pictures."""
    places = _places(manifest)
    for column in reversed(manifest.columns):
        is_stored = column.name.endswith(STORED_SHA256.name) and column.step in manifest.operators
        if is_stored and places[column.step] < before:
            return column.step
    return None


def _rides_on(manifest: Manifest, place: int) -> Iterator[str]:
    """Columns of the source that a step reads, or that those read whose values it reads, as `curation.plan` has it."""
    producers = {column.name: column.step for column in manifest.columns}
    for name in _read_by(manifest, place):
        step = (_brings_pictures(manifest, place) if name == IMAGE.name else producers.get(name)) or ""
        if step == "source" and name not in _OF_PARTS:
            yield name
        elif step in manifest.operators and (at := _places(manifest)[step]) < place:
            yield from _rides_on(manifest, at)


def _read_by(manifest: Manifest, place: int) -> list[str]:
    """The columns that a step reads; of a user's own operator, whose code is not here, those that it was pointed at."""
    step = manifest.spec["steps"][place - 1]  # the funnel has the source, too
    reads, kind = step.get("reads") or {}, manifest.funnel[place].kind
    if kind not in operator_names():
        return list(reads.values())
    try:
        operator = OperatorRef(kind, step.get("parameters") or {}).build()
    except ValidationError:  # the parameters of another release
        return list(reads.values())
    if isinstance(operator, Derive):
        names = [column.name for column in manifest.columns]
        return [name for text in operator.columns.values() for name in used_columns(text, names)]
    own = [column.name for column in operator.reads if column.name not in operator.judges_by]
    return [reads.get(name, name) for name in own]
