"""Pairs of rows within a radius, by the joins that dedup uses; for tests that look at rows, not at distinct codes."""

from collections.abc import Iterator

import numpy as np

from curation.dedup.hashes.distinct_codes import distinct
from curation.dedup.hashes.hamming import jobs_between, jobs_within
from curation.dedup.join import PairBlock, pairs_of
from curation.dedup.leaders import first_by_rank, leaders, nearest
from curation.dedup.survivors import Rule


def pairs_within(codes_N: np.ndarray, distance: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (left_P, right_P) of rows, left < right: each further row of a code is paired with its first row only."""
    codes_U, group_N = distinct(codes_N)
    first_U = first_by_rank(group_N, np.arange(len(codes_N)))
    repeats = np.flatnonzero(first_U[group_N] != np.arange(len(codes_N)))
    found = [(first_U[group_N[repeats]], repeats)]
    for left_P, right_P, _ in _pairs(codes_U, distance):
        a_P, b_P = first_U[left_P], first_U[right_P]
        found.append((np.minimum(a_P, b_P), np.maximum(a_P, b_P)))
    left_P, right_P = (np.concatenate(side) for side in zip(*found, strict=True))
    return left_P, right_P


def leaders_within(codes_N: np.ndarray, distance: int, rule: Rule) -> np.ndarray:
    """For codes in rank order, the row that each row gives way to."""
    codes_U, group_N = distinct(codes_N)
    return leaders(group_N, _pairs(codes_U, distance), np.arange(len(codes_N)), rule)


def nearest_between(codes_N: np.ndarray, others_M: np.ndarray, distance: int) -> np.ndarray:
    """For each code the nearest of the others, the first of equally near ones; -1 for none."""
    (codes_U, group_N), (others_V, group_M) = distinct(codes_N), distinct(others_M)
    first_V = first_by_rank(group_M, np.arange(len(others_M)))
    values = (codes_U, np.zeros(len(codes_U), np.bool_), others_V, np.zeros(len(others_V), np.bool_))
    found = pairs_of(jobs_between(values, distance), values)
    nearest_U = nearest(((left_P, first_V[right_P], far_P) for left_P, right_P, far_P in found), len(codes_U))
    return nearest_U[group_N]


def _pairs(codes_U: np.ndarray, distance: int) -> Iterator[PairBlock]:
    values = (codes_U, np.zeros(len(codes_U), np.bool_))
    return pairs_of(jobs_within(values, distance), values)
