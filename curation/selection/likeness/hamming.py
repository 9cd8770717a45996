"""Hash codes of 64 or 256 bits, as many bits apart as they differ in."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.dedup.hashes.chance import Kind
from curation.dedup.hashes.codes_by_key import rounds
from curation.dedup.hashes.distinct_codes import distinct
from curation.dedup.hashes.hamming import jobs_between, jobs_within, tables_within
from curation.dedup.hashes.low_entropy import exact_only_of_64_bits, exact_only_of_pdq
from curation.dedup.hashes.sampled import jobs_sampled, sampling_for, tables_sampled
from curation.dedup.join import PairBlock, Values
from curation.selection.likeness.likeness import Search, Side
from curation.selection.likeness.partitions import partition_bytes
from curation.selection.step import Desk
from schemas.errors import RunError

_BYTES_OF_256_BITS = 32
VERSION = 1
SHARED_BYTES = 16 << 30  # up to here every worker holds all codes, which costs less than sending them by each table


@dataclass(frozen=True)
class Hamming:
    """Codes that differ in at most `within` bits.

    `kind` is the operator that made them, None where the source brought them: only then is it known which codes say
    too little of their picture to have neighbours. `recall` lets a search of 256 bits miss some pairs.
    """

    within: int
    kind: Kind | None = None
    recall: float | None = None

    @property
    def identity(self) -> list[Any]:
        """The algorithm; a sampled search is one of its own."""
        return ["hamming", VERSION, self.kind, self.recall]

    @property
    def threshold(self) -> str:
        """The radius."""
        return str(self.within)

    @property
    def words(self) -> str:
        """For reasons."""
        return f"within {self.within} bits"

    @property
    def preposition(self) -> str:
        """For reasons."""
        return "of"

    def sides(self, tables: Sequence[pa.Table], desk: Desk, folder: Path) -> list[Side]:
        """The distinct codes; NULL has none."""
        sides = [self._side(table) for table in tables]
        spilled = sum(side.held[0].nbytes for side in sides) > SHARED_BYTES
        return [replace(side, spilled=spilled) for side in sides]

    def search(self, side: Side, other: Side | None, desk: Desk, folder: Path, *, forest: bool = False) -> Search:
        """Tables of blocks of bits, or of bits drawn at random."""
        values = side.held if other is None else (*side.held, *other.held)
        if side.spilled:
            return self._by_key(values, desk, folder, forest)
        if other is None and self.recall is not None:
            sampling = sampling_for(values, self.within, self.recall)
            if sampling is not None:
                promised = {"recall": round(sampling.recall_at(self.within), 4)}
                return Search([(jobs_sampled(values, self.within, sampling), values)], promised)
        jobs = jobs_within(values, self.within) if other is None else jobs_between(values, self.within)
        return Search([(jobs, values)], {"recall": 1.0})

    def _by_key(self, values: Values, desk: Desk, folder: Path, forest: bool) -> Search:
        """The same by rounds of partitions, for codes that outgrow memory."""
        sampling = None
        if len(values) == 2 and self.recall is not None:
            sampling = sampling_for(values, self.within, self.recall)
        tables = tables_within(values, self.within) if sampling is None else tables_sampled(sampling)
        recall = 1.0 if sampling is None else round(sampling.recall_at(self.within), 4)
        whole_bytes = sum(codes.nbytes for codes in values[::2])
        found = rounds(
            tables if self.within else [],
            values,
            self.within,
            partition_bytes(whole_bytes),
            folder,
            desk.find,
            forest=forest,
        )
        return Search(found, {"recall": recall})

    def covers(self, threshold: str) -> bool:
        """A sample of a wider radius is another sample."""
        return int(threshold) >= self.within if self.recall is None else int(threshold) == self.within

    def distances(self, block: PairBlock, side: Side, other: Side) -> tuple[np.ndarray, np.ndarray]:
        """The bits that differ."""
        return block[2] <= self.within, block[2]

    def _side(self, table: pa.Table) -> Side:
        codes_N, is_valid_N = _codes(table["by_0"])
        codes_U, group_M = distinct(codes_N[is_valid_N])
        group_N = np.full(len(codes_N), -1, np.int64)
        group_N[is_valid_N] = group_M
        exact_only_U = self._exact_only(codes_U, group_M, table, is_valid_N)
        named = hashlib.sha256(codes_U.tobytes() + exact_only_U.tobytes()).hexdigest()
        facts = {"exact_only": int(exact_only_U[group_M].sum())} if exact_only_U.any() else {}
        return Side(group_N, len(codes_U), named, (codes_U, exact_only_U), facts)

    def _exact_only(self, codes_U: np.ndarray, group_M: np.ndarray, table: pa.Table, is_valid_N: np.ndarray) -> Any:
        if "quality" in table.column_names:
            quality_N = pc.fill_null(table["quality"], 0).to_numpy()
            return exact_only_of_pdq(group_M, quality_N[is_valid_N], len(codes_U))
        if self.kind in ("phash", "dhash"):
            return exact_only_of_64_bits(codes_U)
        return np.zeros(len(codes_U), np.bool_)


def _codes(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Codes as uint64_N or uint64_NW, the first bit highest (0 for NULL), and which rows are not NULL."""
    array = column.combine_chunks()
    is_valid_N = array.is_valid().to_numpy(zero_copy_only=False)
    if pa.types.is_uint64(array.type):
        return array.fill_null(0).to_numpy(zero_copy_only=False), is_valid_N
    lengths = pc.unique(pc.binary_length(array).drop_null()).to_pylist()
    if lengths not in ([], [_BYTES_OF_256_BITS]):
        raise RunError(f"a hash of 256 bits has 32 bytes; the column holds values of {min(lengths)} to {max(lengths)}")
    packed = b"".join(array.drop_null().to_pylist())
    codes_NW = np.zeros((len(array), 4), np.uint64)
    codes_NW[is_valid_N] = np.frombuffer(packed, ">u8").reshape(-1, 4)
    return codes_NW, is_valid_N
