"""Texts that outgrow memory, joined by stages whose jobs each have a share of them: the pairs are the same.

S: sizes; G: partitions. The stages: split shares into words and sets; find the words that get codes of their own;
write sets as codes; collapse ranges of hashes; send each set to the partitions of its rarest words; join each. What the
driver holds is a few bytes per row, the codes of a few million words, and what the jobs count.
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa

from curation.dedup.exchange import results
from curation.dedup.ragged import forget
from curation.dedup.texts.overlap import partner_sizes
from curation.dedup.texts.sets_by_word import S_PER_WORD, Send, words_jobs
from curation.dedup.texts.spilled_sets import SpilledSets, spill
from curation.dedup.tiles import Partitions
from curation.selection.likeness.likeness import Search, Side
from curation.selection.likeness.partitions import partition_bytes, ranges_of, shares_of
from curation.selection.step import Desk

_BYTES_PER_WORD = 32  # that a job holds: its code, its number, its entry in a list


def spilled_sides(columns: Sequence[pa.ChunkedArray], folder: Path, desk: Desk) -> list[Side]:
    """The distinct sets of the words of one column or two, in files of folders that are made in the folder."""
    folders = [folder / str(number) for number in range(len(columns))]
    for one in folders:
        one.mkdir()
    whole_bytes = sum(column.nbytes for column in columns)
    tables = [[tuple(share) for share in shares_of(column)] for column in columns]
    found = spill(tables, ranges_of(whole_bytes), folders, desk.find)
    return [Side(group_N, len(sets), named, sets, spilled=True) for sets, group_N, named in found]


def spilled_search(side: Side, other: Side | None, least: Fraction, desk: Desk, *, forest: bool) -> Search:
    """What finds the pairs inside one side, or between two: after all stages but the last."""
    held: list[SpilledSets] = [one.held for one in (side, other) if one is not None]
    partner_S = partner_sizes(max(int(sets.size_U.max(initial=0)) for sets in held), least)
    words = sum(int((sets.size_U * (sets.size_U - partner_S[sets.size_U] + 1)).sum(dtype=np.int64)) for sets in held)
    whole_bytes = _BYTES_PER_WORD * words
    partitions = ranges_of(whole_bytes)
    sent = [_sent(sets, partner_S, partitions, desk) for sets in held]
    sides = [Partitions(files, counts_F2G[:, 0]) for files, counts_F2G in sent]
    words_G = np.sum([counts_F2G[:, 1].sum(axis=0) for _, counts_F2G in sent], axis=0)
    jobs = words_jobs(least, sides, words_G, partition_bytes(whole_bytes) // _BYTES_PER_WORD, forest=forest)
    return Search([(sorted(jobs, key=lambda job: -job.work), ())], {"recall": 1.0})


def _sent(sets: SpilledSets, partner_S: np.ndarray, partitions: int, desk: Desk) -> tuple[tuple[Path, ...], np.ndarray]:
    """The files that hold the sets of each range by partition, and how many sets and words as counts_F2G."""
    errands = []
    for file, begin, end in sets.ranges:
        words = int(sets.size_U[begin:end].sum(dtype=np.int64))
        to = file.with_name(f"{file.name}-by-word")
        errands.append(Send(file, begin, to, partitions, S_PER_WORD * words))
    counts_F2G = np.stack(results(desk.find, errands, (partner_S,)))
    for errand in errands:
        forget(errand.sets)
    return tuple(errand.to for errand in errands), counts_F2G
