"""Rows by their likeness to a picture of the set or to a text: cosines with vectors that a step has computed.

N: rows of the version; P: rows of a part; D: numbers per vector. Vectors stay where they are, in the parts' sidecars,
and are read part by part for each question; the page says so where a version has none.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from curation.analytics.explorer.table import LOADED, Table
from curation.analytics.explorer.wishes import Likeness
from curation.analytics.step_values import StepValues, values_of
from curation.storage import layout, sidecars
from curation.storage.store import FileRef
from curation.storage.tables import read_table
from schemas import columns as c
from schemas.errors import InputError

if TYPE_CHECKING:
    from curation.models.loaded_clip import LoadedClip
    from curation.operators.clip_embed import ClipEmbed

_EMBEDS = "clip_embed"
_SAME_MODEL = 0.98  # cosine of a caption's vector now and as it is stored; another device or batch moves it less
_BLOCK_ROWS = 1 << 20


@dataclass(frozen=True)
class Vectors:
    """Where a column of vectors lies: in the source's own files, or in sidecars of a step under a name of its own."""

    column: str
    meaning: str
    step: str
    own: str
    values: StepValues | None  # None in the source's own files
    parameters: Mapping[str, Any]
    reads: Mapping[str, str]  # own names of columns that it reads under others

    @property
    def takes_text(self) -> bool:
        """Whether a text can be compared with them: the model that made them reads both."""
        return self.values is not None and self.values.operator == _EMBEDS


class Likenesses:
    """Answers which rows are like something, over one table."""

    def __init__(self, table: Table) -> None:
        self._table = table
        lineage = table.chosen.manifest.lineage
        record = table.store.get(layout.snapshot(lineage.snapshot)) if lineage else None
        self._members: Sequence[Mapping[str, Any]] = record["parts"] if record else ()
        self.columns = {found.column: found for found in _columns(table)} if self._members else {}
        self._scores = functools.lru_cache(2)(self._scored)
        self._places = functools.cache(self._places_of)
        self._texts = functools.lru_cache(32)(self._text_vector)
        self._model = functools.cache(self._opened)

    def first(self, wish: Likeness, base_N: np.ndarray, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers at these ranks of the base by likeness, and their cosines; rows without a vector come last.

        Raises InputError where the set has no such vectors, or the model of a text is not there.
        """
        score_N = self._scores(wish)
        rows = np.flatnonzero(base_N)
        worth = np.nan_to_num(score_N[rows], nan=-2.0)
        if stop < len(rows):
            rows = np.sort(rows[np.argpartition(-worth, stop)[:stop]])
            worth = np.nan_to_num(score_N[rows], nan=-2.0)
        found = rows[np.argsort(-worth, kind="stable")][start:stop]
        return found, score_N[found]

    def _scored(self, wish: Likeness) -> np.ndarray:
        """Cosine of every row with what is wished for, float32_N; NaN where there is no vector."""
        if not self.columns:
            raise InputError(
                "this set has no vectors to compare; a `clip_embed` step computes them, and the next run keeps them"
            )
        if wish.column not in self.columns:
            raise InputError(f"{wish.column}: is no column of vectors; there are {', '.join(self.columns)}")
        vectors = self.columns[wish.column]
        wanted_D = self._of_key(vectors, wish.key) if wish.key else self._of_text(vectors, wish.text)
        score_N = np.full(self._table.rows, np.nan, np.float32)
        for number, row_P, vector_PD in self._parts(vectors):
            length_P = np.maximum(np.linalg.norm(vector_PD, axis=1), np.finfo(np.float32).tiny)
            place_P = self._places(number)[row_P]
            score_N[place_P[place_P >= 0]] = (vector_PD @ wanted_D / length_P)[place_P >= 0]
        return score_N

    def _parts(self, vectors: Vectors) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Of each part: its number, rows that have a vector, and these as float32 PD."""
        for number, member in enumerate(self._members):
            column = self._read(vectors, member)
            if column is None:
                continue
            row_P = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
            whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
            halves = np.frombuffer(whole.buffers()[1] or b"", np.float16)
            width = whole.type.byte_width // 2
            halves_PD = halves[whole.offset * width :][: len(whole) * width].reshape(-1, width)
            yield number, row_P, halves_PD[row_P].astype(np.float32)

    def _read(self, vectors: Vectors, member: Mapping[str, Any]) -> pa.ChunkedArray | None:
        store = self._table.store
        if vectors.values is None:
            return read_table(store, FileRef(**member["file"]), [vectors.own])[vectors.own]
        sidecar = vectors.values.sidecar(store, member)
        return None if sidecar is None else sidecars.read_values(store, sidecar, [vectors.own])[vectors.own]

    @functools.cached_property
    def _prefix_N(self) -> np.ndarray:
        """The first 64 bits of every key, which are sorted, uint64_N."""
        with self._table.asked() as connection:
            reader = connection.sql(f"SELECT {c.KEY.name} FROM {LOADED}").to_arrow_reader(_BLOCK_ROWS)
            return np.concatenate([np.zeros(0, np.uint64), *(_prefixes(batch.column(0)) for batch in reader)])

    def _places_of(self, number: int) -> np.ndarray:
        """The table's row of each row of a part, int32_P; -1 where the version does not have it."""
        file = FileRef(**self._members[number]["part"]["file"])
        prefix_P = _prefixes(read_table(self._table.store, file, [c.KEY.name])[c.KEY.name].combine_chunks())
        place_P = np.minimum(np.searchsorted(self._prefix_N, prefix_P), max(self._table.rows - 1, 0))
        return np.where(self._prefix_N[place_P] == prefix_P, place_P, -1).astype(np.int32)

    def _of_key(self, vectors: Vectors, key: str) -> np.ndarray:
        """The vector of a key, float32 D."""
        place = self._table.positions([key]).get(key)
        for number, row_P, vector_PD in self._parts(vectors):
            here = np.flatnonzero(self._places(number)[row_P] == place)
            if len(here):
                wanted_D: np.ndarray = vector_PD[here[0]]
                return wanted_D
        raise InputError(f"{key}: has no {vectors.column}; it was not alive where {vectors.step} computed them")

    def _of_text(self, vectors: Vectors, text: str) -> np.ndarray:
        """The vector of a text by the model that made the others, float32 D."""
        if not vectors.takes_text:
            raise InputError(f"{vectors.column}: no model is known that makes such vectors of a text; choose a picture")
        if not text.strip():
            raise InputError("write what the pictures should show")
        return self._texts(vectors.step, text)

    def _text_vector(self, step: str, text: str) -> np.ndarray:
        operator, model = self._model(step)
        vector_D: np.ndarray = model.captions([text], operator.batch_size)()[0]
        return vector_D

    def _opened(self, step: str) -> tuple["ClipEmbed", "LoadedClip"]:
        """The operator and its model. Raises InputError where another model lies where that of the vectors did."""
        from curation.operators.clip_embed import ClipEmbed

        vectors = next(found for found in self.columns.values() if found.step == step)
        operator = ClipEmbed(**vectors.parameters)
        operator.check()
        model = operator.open()
        known = self._known_text(step)
        if known is not None:
            caption, vector_D = known
            made_D = model.captions([caption], operator.batch_size)()[0]
            if made_D.shape != vector_D.shape or float(made_D @ vector_D) < _SAME_MODEL:
                raise InputError(f"model {operator.model}: is not the one that made the vectors of {step}")
        return operator, model

    def _known_text(self, step: str) -> tuple[str, np.ndarray] | None:
        """A caption and its vector as the step has stored it; None where there is none, or it read another column."""
        text = next((found for found in self.columns.values() if (found.step, found.own) == (step, c.CLIP_TEXT)), None)
        if text is None or text.reads:
            return None
        for number, row_P, vector_PD in self._parts(text):
            if len(row_P):
                file = FileRef(**self._members[number]["part"]["file"])
                caption = read_table(self._table.store, file, [c.CAPTION.name])[c.CAPTION.name][int(row_P[0])]
                return caption.as_py() or "", vector_PD[0]
        return None


def _columns(table: Table) -> Iterator[Vectors]:
    manifest = table.chosen.manifest
    places = {entry.step: place for place, entry in enumerate(manifest.funnel)}
    for column in manifest.columns:
        if not column.type.startswith("float16["):
            continue
        if column.step == "source":
            yield Vectors(column.name, column.meaning, column.step, column.name, None, {}, {})
        elif column.step in manifest.operators:
            step = manifest.spec["steps"][places[column.step] - 1]
            own = column.name.removeprefix(f"{step.get('as_prefix') or step.get('as')}_")
            yield Vectors(
                column.name, column.meaning, column.step, own, values_of(manifest, column.step),
                step.get("parameters") or {}, step.get("reads") or {},
            )  # fmt: skip


def _prefixes(keys: pa.Array) -> np.ndarray:
    """The first 64 bits of keys of 32 hex digits, uint64_P."""
    if not len(keys):
        return np.zeros(0, np.uint64)
    digit_P16 = np.frombuffer("".join(keys.to_pylist()).encode("ascii"), np.uint8).reshape(-1, 32)[:, :16]
    nibble_P16 = ((digit_P16 & 15) + 9 * (digit_P16 >> 6)).astype(np.uint64)
    shift_16 = np.arange(60, -4, -4).astype(np.uint64)
    return np.bitwise_or.reduce(nibble_P16 << shift_16, axis=1)
