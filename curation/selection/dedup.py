"""`dedup`: one row of each group of duplicates, by equality or by Hamming distance; or none that another set has."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator, model_validator

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
from schemas.errors import InputError

CODE = "by_0"


class Dedup(DatasetStep):
    """Keeps one row of each group of duplicates, by equality or within a Hamming distance; ties go to the lower key."""

    by: str | tuple[str, ...] = Field(
        description="column, or columns that must all agree; NULL in any passes untouched"
    )
    within: int | None = Field(default=None, ge=0, le=31, description="Hamming distance, in bits of a 64-bit hash")
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
        if self.within is not None and len(self.columns) > 1:
            raise ValueError(f"within: compares one hash column, but 'by' names {len(self.columns)}")
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
        """The compared columns, and the terms of the rank."""
        compared = {f"by_{n}": identifier(column) for n, column in enumerate(self.columns)}
        return compared | {f"order_{n}": term.expression for n, term in enumerate(self.terms)}

    @property
    def against_columns(self) -> dict[str, str]:
        """The compared columns, which the other sets must have."""
        return {f"by_{n}": column for n, column in enumerate(self.columns)} if self.against else {}

    def check(self, types: Mapping[str, pa.DataType]) -> None:
        """Refuse a radius on what is no hash."""
        if self.within is not None and not pa.types.is_uint64(types[CODE]):
            raise InputError(
                f"within: needs an unsigned 64-bit column (image_hash adds 'phash'), but {self.columns[0]!r} is of "
                f"type {types[CODE]}; without 'within', dedup compares for equality"
            )

    def check_against(self, theirs: pa.Table, types: Mapping[str, pa.DataType]) -> None:
        """Refuse a table of another set whose columns do not compare with ours."""
        self._comparable(theirs, pa.schema([pa.field(name, kind) for name, kind in types.items()]))

    def refuse_chance_neighbours(self, rows: int) -> None:
        """Raise InputError if a row expects more than 0.01 neighbours by chance among `rows` rows.

        `rows` are those that a row is compared with: the pool's, or with `against` the other sets'.
        """
        if self.within is None or self.force:
            return
        from curation.dedup.chance import MOST_EXPECTED, chance_within, safe_distance

        expected = rows * chance_within(self.within)
        if expected > MOST_EXPECTED:
            safe = safe_distance(rows)
            advice = f"the largest safe radius is {safe}" if safe is not None else "no radius is safe"
            raise InputError(
                f"within: {self.within} over {rows:,} rows: a row expects {expected:.2g} neighbours by chance (at most "
                f"{MOST_EXPECTED} is safe), so unrelated pictures would be dropped; {advice}; "
                "'force: true' runs it anyway"
            )

    def decide(self, rows: pa.Table, against: Sequence[pa.Table] = (), desk: Desk = ALONE) -> Decision:
        """Decide over the rows, or compare them with the tables of `against`."""
        return self._decide_against(rows, against) if self.against else self._decide_inside(rows)

    def _decide_inside(self, rows: pa.Table) -> Decision:
        """Keep the rows that lead themselves."""
        terms = [(f"order_{n}", term.descending) for n, term in enumerate(self.terms)]
        order_N = positions_in_order(rows, terms)
        rank_N = np.empty_like(order_N)
        rank_N[order_N] = np.arange(len(order_N))
        if self.within is None:
            leader_N = self._first_equal(rows, rank_N, rows, rank_N)
        else:
            leader_N = self._leaders_within(rows, order_N, rank_N)
        kept_N = (leader_N < 0) | (leader_N == rank_N)
        dropped = np.flatnonzero(~kept_N)
        names = rows["key"].take(pa.array(order_N[leader_N[dropped]])).to_pylist()
        return Decision(kept_N, self._reason, dict(zip(dropped.tolist(), names, strict=True)))

    def _leaders_within(self, rows: pa.Table, order_N: np.ndarray, rank_N: np.ndarray) -> np.ndarray:
        """The rank of the row that each row gives way to; -1 for NULL."""
        from curation.dedup.near import leaders_within

        assert self.within is not None
        codes_N, is_valid_N = _codes(rows)
        valid_ranks = np.flatnonzero(is_valid_N[order_N])
        leader_of_rank = np.full(len(order_N), -1, np.int64)
        leaders = leaders_within(codes_N[order_N[valid_ranks]], self.within, self.survivors)
        leader_of_rank[valid_ranks] = valid_ranks[leaders]
        return leader_of_rank[rank_N]

    def _decide_against(self, rows: pa.Table, against: Sequence[pa.Table]) -> Decision:
        """Drop the rows that have a neighbour in the tables; of several, the nearest, then by key, file and row."""
        others = pa.concat_tables([self._comparable(table, rows.schema) for table in against])
        result = query(
            f"select {POSITION} from others order by key nulls last, file, row", others=with_positions(others)
        )
        others = others.take(pa.array(result[POSITION]))
        if self.within is None:
            ranks = np.arange(others.num_rows)
            neighbour_N = self._first_equal(rows, np.arange(rows.num_rows), others, ranks)
        else:
            neighbour_N = self._nearest(rows, others)
        dropped = np.flatnonzero(neighbour_N >= 0)
        found = others.select(["key", "file", "row"]).take(pa.array(neighbour_N[dropped])).to_pylist()
        named = dict(zip(dropped.tolist(), found, strict=True))
        places = {row: f"{self._likeness} {at['file']} row {at['row']}" for row, at in named.items() if not at["key"]}
        keys = {row: at["key"] or None for row, at in named.items()}
        return Decision(neighbour_N < 0, f"{self._likeness} a row of the other set", keys, places)

    def _nearest(self, rows: pa.Table, others: pa.Table) -> np.ndarray:
        """The position of each row's nearest neighbour within the radius, or -1."""
        from curation.dedup.near import nearest_between

        assert self.within is not None
        (codes_N, is_valid_N), (others_M, is_valid_M) = _codes(rows), _codes(others)
        neighbour_N = np.full(len(codes_N), -1, np.int64)
        nearest = nearest_between(codes_N[is_valid_N], others_M[is_valid_M], self.within)
        positions = np.append(np.flatnonzero(is_valid_M), -1)  # -1 stays -1
        neighbour_N[is_valid_N] = positions[nearest]
        return neighbour_N

    def _first_equal(self, rows: pa.Table, rank_N: np.ndarray, others: pa.Table, rank_M: np.ndarray) -> np.ndarray:
        """The lowest rank among the others that equal each row in every column, or -1; NULL equals nothing."""
        columns = ", ".join(f"by_{n}" for n in range(len(self.columns)))
        result = query(
            f"""select {POSITION}, first from rows
                join (select {columns}, min(rank) as first from others group by {columns}) using ({columns})""",
            rows=with_positions(rows),
            others=others.append_column("rank", pa.array(rank_M)),
        )
        first_N = np.full(rows.num_rows, -1, np.int64)
        first_N[result[POSITION]] = result["first"]
        return first_N

    def _comparable(self, table: pa.Table, schema: pa.Schema) -> pa.Table:
        """The other set's columns in the pool's types. Raises InputError where that would change values."""
        columns = {"key": table["key"].cast(pa.string()), "file": table["file"].cast(pa.string()), "row": table["row"]}
        for n, column in enumerate(self.columns):
            wanted, found = schema.field(f"by_{n}").type, table.schema.field(f"by_{n}").type
            try:
                if _family(wanted) != _family(found):
                    raise pa.ArrowInvalid("another type")
                columns[f"by_{n}"] = table[f"by_{n}"].cast(wanted)
            except pa.ArrowInvalid as error:
                raise InputError(
                    f"against: column {column!r} is of type {found} there and of type {wanted} in the pool ({error}); "
                    "bring it in the pool's type"
                ) from error
        return pa.table(columns)

    @property
    def _likeness(self) -> str:
        names = ", ".join(self.columns)
        return f"{names} equal to" if self.within is None else f"{names} within {self.within} bits of"

    @property
    def _reason(self) -> str:
        if self.within is None or self.survivors == "greedy":
            return f"{self._likeness} a kept row that ranks before it"
        if self.survivors == "earlier":
            return f"{self._likeness} a row that ranks before it"
        return f"linked by steps of {', '.join(self.columns)} within {self.within} bits to a row that ranks before it"


def _codes(rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """The hash column as uint64_N, 0 for NULL (to_numpy would give doubles), and which rows are not NULL."""
    codes = rows[CODE].combine_chunks()
    return codes.fill_null(0).to_numpy(zero_copy_only=False), codes.is_valid().to_numpy(zero_copy_only=False)


def _family(type_: pa.DataType) -> Any:
    """Types of one family are compared by value; others only with their own."""
    if pa.types.is_dictionary(type_):
        return _family(type_.value_type)
    for name in ("integer", "floating", "decimal"):
        if getattr(pa.types, f"is_{name}")(type_):
            return name
    if pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        return "string"
    if pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_fixed_size_binary(type_):
        return "binary"
    return type_
