"""`balance`: rows of frequent entries are thinned, rare ones stay (MetaCLIP: Xu et al. 2023, arXiv 2309.16671)."""

import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
from pydantic import Field

from curation.selection.ordering import POSITION, identifier, query, with_positions
from curation.selection.step import ALONE, DatasetStep, Decision, Desk, Mark
from schemas.errors import InputError

ENTRIES = "by_0"


class Balance(DatasetStep):
    """Keeps a row with the probability 1 - ∏ (1 - min(1, cap / rows with that entry)) over its entries."""

    by: str = Field(min_length=1, description="column: a value, or a list of them; NULL and empty lists are dropped")
    cap: int = Field(ge=1, description="an entry that so many rows have, or fewer, keeps them all")
    seed: int = Field(default=0, description="another seed draws other rows")
    mark: Mark = None

    @property
    def inputs(self) -> dict[str, str]:
        """The column of entries."""
        return {ENTRIES: identifier(self.by)}

    def check(self, types: Mapping[str, pa.DataType]) -> None:
        """Refuse what is not counted by value."""
        found = types[ENTRIES]
        entry = found.value_type if _is_list(found) else found
        countable = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_boolean)
        if not any(is_countable(entry) for is_countable in countable):
            raise InputError(
                f"by: {self.by!r} is of type {found}; balance counts texts, integers and booleans, or lists of them "
                "(match_terms adds 'matched_terms')"
            )

    def decide(self, rows: pa.Table, against: Sequence[pa.Table] = (), desk: Desk = ALONE) -> Decision:
        """Keep a row if a number drawn from its key lies below its probability.

        The number is the first 8 bytes of SHA-256 of `balance<seed> <key>` as a big-endian integer: a row is kept if
        number < floor(2^64 · probability).
        """
        positions, counts = self._counts(rows)
        kept_N = np.zeros(rows.num_rows, np.bool_)
        has_entry_N = np.zeros(rows.num_rows, np.bool_)
        has_entry_N[positions] = True
        keys = rows["key"].take(pa.array(positions)).to_pylist()
        kept_N[positions] = [self._is_kept(key, of_row) for key, of_row in zip(keys, counts, strict=True)]
        nothing = dict.fromkeys(np.flatnonzero(~has_entry_N).tolist(), f"{self.by} has no entry to balance by")
        return Decision(kept_N, self._reason, row_reasons=nothing)

    def _counts(self, rows: pa.Table) -> tuple[np.ndarray, Iterator[list[int]]]:
        """The rows that have entries, and for each in how many rows each of its different entries is, ascending."""
        is_list = _is_list(rows.schema.field(ENTRIES).type)
        entries = f"unnest({ENTRIES})" if is_list else ENTRIES
        result = query(
            f"""with entries as (select distinct {POSITION}, {entries} as entry from rows),
                counts as (select entry, count(*) as count from entries where entry is not null group by entry)
                select {POSITION}, count from entries join counts using (entry) order by {POSITION}, count""",
            rows=with_positions(rows),
        )
        positions, counts = result[POSITION], result["count"].tolist()
        edges = np.flatnonzero(np.append(True, positions[1:] != positions[:-1])[: len(positions)])
        ends = itertools.pairwise([*edges.tolist(), len(counts)])
        return positions[edges], (counts[start:end] for start, end in ends)

    def _is_kept(self, key: str, counts: list[int]) -> bool:
        if counts[0] <= self.cap:  # it has a rare entry, as most rows do
            return True
        number = hashlib.sha256(f"balance{self.seed} {key}".encode()).digest()[:8]
        return int.from_bytes(number, "big") < kept_below(counts, self.cap)

    @property
    def _reason(self) -> str:
        return (
            f"not drawn: each entry of {self.by} is in more than {self.cap:,} rows, which are thinned towards that "
            f"(seed {self.seed})"
        )


def kept_below(counts: Sequence[int], cap: int) -> int:
    """floor(2^64 · (1 - ∏ (1 - min(1, cap / count)))), exactly: of whole numbers, with no rounding anywhere."""
    every = math.prod(counts)
    dropped = math.prod(max(count - cap, 0) for count in counts)
    return ((every - dropped) << 64) // every


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))
