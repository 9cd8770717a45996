"""`dedup`: one row of each group of duplicates, by equality or by likeness; or none that another set has.

By likeness are: bits of a hash (`within`), the cosine of embeddings (`cosine`), words of a text (`jaccard`).
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import BeforeValidator, Field, PrivateAttr, field_validator, model_validator

from curation.dedup.hashes.chance import MOST_EXPECTED, Kind, chance_within, safe_distance
from curation.selection.comparable import as_vectors, in_our_types
from curation.selection.decimals import as_written
from curation.selection.duplicates import equal_leaders, group_facts, like_leaders, nearest_like, rank_of_equal
from curation.selection.likeness.likeness import Likeness
from curation.selection.ordering import (
    POSITION,
    OrderTerm,
    identifier,
    parse_order_term,
    positions_in_order,
    query,
    with_positions,
)
from curation.selection.step import ALONE, DatasetStep, Decision, Desk, Mark
from schemas import columns as c
from schemas.columns import Column
from schemas.errors import InputError

VALUE = "by_0"
_HASHES: dict[Kind, Column] = {"phash": c.PHASH, "dhash": c.DHASH, "pdq": c.PDQ}
_THRESHOLDS = ("within", "cosine", "jaccard")


class Dedup(DatasetStep):
    """Keeps one row of each group of duplicates: equal, or near by bits, cosine or words; ties go to the lower key."""

    by: str | tuple[str, ...] = Field(
        description="column, or columns that must all agree; NULL in any passes untouched"
    )
    within: int | None = Field(
        default=None, ge=0, le=31, description="Hamming distance, in bits of a hash of 64 or 256 bits"
    )
    cosine: Annotated[Decimal, BeforeValidator(as_written)] | None = Field(
        default=None, gt=0, le=1, description="least cosine of two embeddings; zeros and NaN pass untouched"
    )
    jaccard: Annotated[Decimal, BeforeValidator(as_written)] | None = Field(
        default=None, gt=0, le=1, description="least Jaccard of the word sets of two texts; no word passes untouched"
    )
    recall: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="find this share of the pairs at the threshold, where all would be too dear; the manifest tells",
    )
    quality: str | None = Field(
        default=None, description="column: a hash whose quality is 49 or less compares for equality only"
    )
    survivors: Literal["components", "earlier", "greedy"] = Field(
        default="components",
        description="keep the first of each connected component; or drop a row if any neighbour ranks before it; "
        "or walk in rank order and keep a row if no kept neighbour is near",
    )
    prefer: str | tuple[str, ...] = Field(default=(), description="SQL order terms: who ranks first; NULL, NaN last")
    against: str | tuple[str, ...] = Field(
        default=(),
        description="Parquet files or manifests: drop the rows that have a neighbour there, compare no others",
    )
    assume_equal: bool = Field(
        default=False, description="the other sets' columns compare with ours though other operators made them"
    )
    mark: Mark = None
    force: bool = Field(default=False, description="run a radius at which chance neighbours are expected")
    _kind: Kind | None = PrivateAttr(default=None)  # of hash, where an operator made it

    @field_validator("by", "prefer", "against")
    @classmethod
    def _several(cls, value: str | tuple[str, ...]) -> tuple[str, ...]:
        return (value,) if isinstance(value, str) else value

    @field_validator("prefer")
    @classmethod
    def _order_terms(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for term in value:
            parse_order_term(term)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.columns or not all(self.columns) or len(set(self.columns)) < len(self.columns):
            raise ValueError("by: name a column, or a list of different columns")
        said = [name for name in _THRESHOLDS if getattr(self, name) is not None]
        if len(said) > 1:
            raise ValueError(f"{said[0]} and {said[1]} measure different things; write two steps")
        if said and len(self.columns) > 1:
            raise ValueError(f"{said[0]}: compares one column, but 'by' names {len(self.columns)}")
        if self.recall is not None and not said:
            raise ValueError("recall: equality misses nothing; it belongs to within, cosine or jaccard")
        if self.quality is not None and self.within is None:
            raise ValueError("quality: is that of a hash, and belongs to within")
        if self.against and {"prefer", "survivors"} & self.model_fields_set:
            raise ValueError(
                "against: compares with the other set only, so 'prefer' and 'survivors' decide nothing; "
                "write a second dedup for duplicates inside the pool"
            )
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """The compared columns."""
        return self._several(self.by)

    @property
    def terms(self) -> tuple[OrderTerm, ...]:
        """The order terms of `prefer`."""
        return tuple(parse_order_term(term) for term in self._several(self.prefer))

    @property
    def inputs(self) -> dict[str, str]:
        """The compared columns, the terms of the rank, and the quality of hashes."""
        compared = {f"by_{n}": identifier(column) for n, column in enumerate(self.columns)}
        if self.cosine is not None:
            compared = {}
        quality = {"quality": identifier(self.quality)} if self.quality else {}
        return compared | quality | {f"order_{n}": term.expression for n, term in enumerate(self.terms)}

    @property
    def stored_inputs(self) -> dict[str, str]:
        """The compared embeddings."""
        return {VALUE: self.columns[0]} if self.cosine is not None else {}

    @property
    def against_columns(self) -> dict[str, str]:
        """The compared columns, which the other sets must have."""
        return {f"by_{n}": column for n, column in enumerate(self.columns)} if self.against else {}

    def bound(self, columns: Mapping[str, Column]) -> Self:
        """With the kind of hash, and the quality of a PDQ, as image_hash made them."""
        found = columns.get(self.columns[0])
        if self.within is None or found is None:
            return self
        kind = next((kind for kind, made in _HASHES.items() if found.named(made.name) == made), None)
        quality = f"{self.columns[0]}_quality"
        told = {"quality": quality} if kind == "pdq" and self.quality is None and quality in columns else {}
        bound = self.model_copy(update=told)
        bound._kind = kind
        return bound

    def check(self, types: Mapping[str, pa.DataType]) -> None:
        """Refuse a threshold on what it does not measure."""
        found, name = types[VALUE], self.columns[0]
        is_text = pa.types.is_string(found) or pa.types.is_large_string(found)
        if self.within is not None and not (pa.types.is_uint64(found) or _is_binary(found)):
            raise InputError(
                f"within: needs an unsigned 64-bit column or a binary one of 256 bits (image_hash adds 'phash' and "
                f"'pdq'), but {name!r} is of type {found}; without 'within', dedup compares for equality"
            )
        if self.jaccard is not None and not is_text:
            raise InputError(f"jaccard: needs a text, but {name!r} is of type {found}")
        if self.quality is not None and not pa.types.is_integer(types["quality"]):
            raise InputError(f"quality: {self.quality!r} is of type {types['quality']}, and no whole number")

    def check_against(self, theirs: pa.Table, types: Mapping[str, pa.DataType]) -> None:
        """Refuse a table of another set whose columns do not compare with ours."""
        self._comparable(theirs, pa.schema([pa.field(name, kind) for name, kind in types.items()]))

    def refuse_chance_neighbours(self, rows: int) -> None:
        """Raise InputError if a row expects more than 0.01 neighbours by chance among `rows` rows.

        `rows` are those that a row is compared with: the pool's, or with `against` the other sets'.
        """
        if self.within is None or self.force:
            return
        kind = self._kind or "phash"
        expected = rows * chance_within(self.within, kind)
        if expected > MOST_EXPECTED:
            safe = safe_distance(rows, kind)
            advice = f"the largest safe radius is {safe}" if safe is not None else "no radius is safe"
            raise InputError(
                f"within: {self.within} over {rows:,} rows: a row expects {expected:.2g} neighbours by chance (at most "
                f"{MOST_EXPECTED} is safe), so unrelated pictures would be dropped; {advice}; "
                "'force: true' runs it anyway"
            )

    def decide(self, rows: pa.Table, against: Sequence[pa.Table] = (), desk: Desk = ALONE) -> Decision:
        """Decide over the rows, or compare them with the tables of `against`."""
        return self._decide_against(rows, against, desk) if self.against else self._decide_inside(rows, desk)

    def _decide_inside(self, rows: pa.Table, desk: Desk) -> Decision:
        """Keep the rows that lead themselves."""
        rank_N = np.empty(rows.num_rows, np.int64)
        order_N = positions_in_order(rows, [(f"order_{n}", term.descending) for n, term in enumerate(self.terms)])
        rank_N[order_N] = np.arange(len(order_N))
        if self.likeness is None:
            leader_N, facts = equal_leaders(rows.select(list(self.inputs)[: len(self.columns)]), rank_N, desk)
        else:
            leader_N, facts = like_leaders(self.likeness, rows, rank_N, self.survivors, desk)
        if self.survivors == "components" or self.likeness is None:
            facts |= group_facts(leader_N, rows["key"])
        kept_N = leader_N == np.arange(rows.num_rows)
        dropped = np.flatnonzero(~kept_N)
        names = rows["key"].take(pa.array(leader_N[dropped])).to_pylist()
        return Decision(kept_N, self._reason, dict(zip(dropped.tolist(), names, strict=True)), facts=facts)

    def _decide_against(self, rows: pa.Table, against: Sequence[pa.Table], desk: Desk) -> Decision:
        """Drop the rows that have a neighbour in the tables; of several, the nearest, then by key, file and row."""
        others = pa.concat_tables([self._comparable(table, rows.schema) for table in against])
        order = query(
            f"select {POSITION} from others order by key nulls last, file, row",
            others=with_positions(others.select(["key", "file", "row"])),
        )
        others = others.take(pa.array(order[POSITION]))
        if self.likeness is None:
            neighbour_N, facts = rank_of_equal(rows, others, list(self.against_columns), desk)
        else:
            neighbour_N, facts = nearest_like(self.likeness, rows, others, desk)
        dropped = np.flatnonzero(neighbour_N >= 0)
        found = others.select(["key", "file", "row"]).take(pa.array(neighbour_N[dropped])).to_pylist()
        named = dict(zip(dropped.tolist(), found, strict=True))
        places = {row: f"{self._likeness} {at['file']} row {at['row']}" for row, at in named.items() if not at["key"]}
        keys = {row: at["key"] or None for row, at in named.items()}
        return Decision(neighbour_N < 0, f"{self._likeness} a row of the other set", keys, places, facts=facts)

    @property
    def likeness(self) -> Likeness | None:
        """How near two values must be; None where they must be equal."""
        if self.within is not None:
            from curation.selection.likeness.hamming import Hamming

            return Hamming(self.within, self._kind, self.recall)
        if self.cosine is not None:
            from curation.selection.likeness.cosine import Cosine

            return Cosine(Fraction(self.cosine), self.recall)
        if self.jaccard is not None:
            from curation.selection.likeness.jaccard import Jaccard

            return Jaccard(Fraction(self.jaccard), self.recall)
        return None

    def _comparable(self, table: pa.Table, schema: pa.Schema) -> pa.Table:
        """The other set's columns in the pool's types. Raises InputError where that would change values."""
        columns = {"key": table["key"].cast(pa.string()), "file": table["file"].cast(pa.string()), "row": table["row"]}
        if self.cosine is not None:
            return pa.table(columns | as_vectors(table, VALUE, self.columns[0]))
        types = {field.name: field.type for field in schema}
        return pa.table(columns | in_our_types(table, self.against_columns, types))

    @property
    def _likeness(self) -> str:
        names = ", ".join(self.columns)
        if self.likeness is None:
            return f"{names} equal to"
        return f"{names} {self.likeness.words} {self.likeness.preposition}"

    @property
    def _reason(self) -> str:
        if self.likeness is None or self.survivors == "greedy":
            return f"{self._likeness} a kept row that ranks before it"
        if self.survivors == "earlier":
            return f"{self._likeness} a row that ranks before it"
        names = ", ".join(self.columns)
        return f"linked by steps of {names} {self.likeness.words} to a row that ranks before it"


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
