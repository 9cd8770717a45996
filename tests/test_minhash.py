"""MinHash: recall as the formula says, every pair true, values and not numbers decide."""

import itertools
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.dedup.join import Job, Values, pairs_of
from curation.dedup.texts import jaccard, minhash
from curation.dedup.texts.minhash import CENTRES, Banding
from curation.dedup.texts.word_sets import WordSets, word_sets

repeatably = settings(deadline=None, derandomize=True, max_examples=30)
LOOSE = Banding(bands=32, rows=2)
THRESHOLD = Fraction("0.8")


def found(join: tuple[Values, list[Job]], threads: int = 1) -> list[tuple[int, int, int]]:
    values, jobs = join
    blocks = [zip(*(side.tolist() for side in block), strict=True) for block in pairs_of(jobs, values, threads)]
    return list(itertools.chain(*blocks))


def long_texts(seed: int, count: int, words: int, edited: float) -> list[str]:
    """Texts of random words, each with a copy in which that share of the words is another."""
    random = np.random.default_rng(seed)
    texts = random.integers(0, 10_000, (count, words))
    copies = np.where(random.random((count, words)) < edited, random.integers(0, 10_000, (count, words)), texts)
    return [" ".join(map(str, text)) for text in np.concatenate([texts, copies]).tolist()]


def jaccards(sets: WordSets, pairs: list[tuple[int, int, int]]) -> np.ndarray:
    sizes = np.diff(sets.starts_U1)
    return np.array([shared / (sizes[a] + sizes[b] - shared) for a, b, shared in pairs])


@pytest.fixture(scope="module")
def sets() -> WordSets:
    return word_sets(pa.array(long_texts(0, 1_500, 60, 0.09)))


@pytest.mark.parametrize(
    ("bands", "rows", "at", "recall"),
    [(16, 8, 0.8, 0.947), (8, 16, 0.8, 0.204), (14, 8, 0.8, 0.924), (9, 13, 0.8, 0.399), (20, 13, 0.7, 0.177)],
)
def test_the_recall_of_a_banding_is_that_of_the_literature(bands: int, rows: int, at: float, recall: float) -> None:
    assert Banding(bands, rows).recall(at) == pytest.approx(recall, abs=6e-4)
    assert (Banding(bands, rows).recall(0), Banding(bands, rows).recall(1)) == (0, 1)


@pytest.mark.parametrize("banding", [Banding(), Banding(8, 16), Banding(9, 13, seed=5)], ids=str)
def test_recall_is_near_what_the_formula_says_and_every_pair_is_true(sets: WordSets, banding: Banding) -> None:
    exact = found(jaccard.self_join(sets, THRESHOLD))
    sampled = found(minhash.self_join(sets, THRESHOLD, banding))
    assert len(exact) > 1_000
    assert set(sampled) <= set(exact)
    assert len(set(sampled)) == len(sampled)
    chances = np.array([banding.recall(at) for at in jaccards(sets, exact)])
    deviation = np.sqrt((chances * (1 - chances)).sum())
    assert abs(len(sampled) - chances.sum()) < 4 * deviation


@repeatably
@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=7).map(" ".join), max_size=20), st.integers(2, 10))
def test_no_pair_is_false_and_overlaps_are_exact(texts: list[str], tenths: int) -> None:
    sets = word_sets(pa.array(texts, pa.string()))
    threshold = Fraction(tenths, 10)
    assert set(found(minhash.self_join(sets, threshold, LOOSE))) <= set(found(jaccard.self_join(sets, threshold)))


def test_many_short_bands_find_all_pairs_of_small_buckets() -> None:
    sets = word_sets(pa.array(long_texts(1, 200, 40, 0.05)))
    banding = Banding(bands=16, rows=4)
    assert banding.recall(0.8) > 0.999
    assert found(minhash.self_join(sets, THRESHOLD, banding)) == sorted(found(jaccard.self_join(sets, THRESHOLD)))


def test_two_collections_are_joined_like_one() -> None:
    texts = long_texts(2, 300, 40, 0.05)
    both = word_sets(pa.array(texts), 2)
    mine, theirs = both.of_texts(slice(300)), both.of_texts(slice(300, None))
    banding = Banding(bands=20, rows=3)
    exact = sorted(found(jaccard.cross_join(mine, theirs, Fraction("0.7"))))
    assert len(exact) > 100
    assert found(minhash.cross_join(mine, theirs, Fraction("0.7"), banding)) == exact


def test_pairs_do_not_change_with_order_repetition_threads_jobs_or_a_text_that_is_like_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = long_texts(3, 150, 30, 0.1)
    banding = Banding(bands=8, rows=4)

    def pairs(texts: list[str], threads: int = 1) -> set[frozenset[str]]:
        sets = word_sets(pa.array(texts))
        text_of = dict(zip(sets.set_N.tolist(), texts, strict=True))
        joined = found(minhash.self_join(sets, THRESHOLD, banding), threads)
        return {frozenset((text_of[a], text_of[b])) for a, b, _ in joined}

    expected = pairs(texts)
    assert len(expected) > 20
    assert pairs(texts[::-1] + texts) == pairs([*texts, "unlike all others"]) == pairs(texts, threads=3) == expected
    monkeypatch.setattr(minhash, "_CANDIDATES_PER_JOB", 3)
    monkeypatch.setattr(minhash, "_SETS_AT_ONCE", 7)
    assert pairs(texts) == expected


def test_a_bucket_of_very_many_costs_linear_comparisons_and_stays_one_component() -> None:
    common = " ".join(f"w{n}" for n in range(200))
    sets = word_sets(pa.array([f"{common} own{n}" for n in range(3_000)]))
    (*_, left, _), jobs = minhash.self_join(sets, THRESHOLD, Banding())
    assert len(left) <= Banding().bands * CENTRES * 3_000
    pairs = found(minhash.self_join(sets, THRESHOLD, Banding()))
    assert len(pairs) == len(left) == sum(job.last - job.first for job in jobs)
    assert {a for a, b, _ in pairs} | {b for a, b, _ in pairs} == set(range(3_000))


def test_signatures_estimate_what_datasketch_estimates() -> None:
    datasketch = pytest.importorskip("datasketch")
    sets = word_sets(pa.array(long_texts(4, 20, 100, 0.2)))
    signatures = minhash._signatures(sets, slice(0, len(sets)), Banding(bands=64, rows=8))
    theirs = []
    for a, b in itertools.pairwise(sets.starts_U1.tolist()):
        theirs.append(datasketch.MinHash(num_perm=512))
        theirs[-1].update_batch([str(token).encode() for token in sets.tokens_T[a:b].tolist()])
    exact = found(jaccard.self_join(sets, Fraction("0.4")))
    assert len(exact) == 20
    for (a, b, _), at in zip(exact, jaccards(sets, exact), strict=True):
        ours = (signatures[a] == signatures[b]).mean()
        assert ours == pytest.approx(at, abs=0.1)
        assert ours == pytest.approx(theirs[a].jaccard(theirs[b]), abs=0.15)


def test_signatures_are_those_recorded_for_the_pinned_rensa() -> None:
    words = word_sets(pa.array(["a red circle", "ein Hund am Strand"]))
    assert minhash._signatures(words, slice(0, 2), Banding(1, 4)).tolist() == [
        [1716442580, 157188896, 402485434, 414689820],
        [378037971, 108885752, 1329535231, 88472022],
    ]
    shingles = word_sets(pa.array(["a red circle on a table"]), 3)
    assert minhash._signatures(shingles, slice(0, 1), Banding(1, 4, seed=7)).tolist() == [
        [1125427723, 232863003, 131823276, 293424514]
    ]


def test_no_texts_give_no_pairs() -> None:
    for texts in ([], [None], ["a"]):
        sets = word_sets(pa.array(texts, pa.string()))
        assert found(minhash.self_join(sets, THRESHOLD, Banding())) == []
        assert found(minhash.cross_join(sets, sets.of_texts(slice(0)), THRESHOLD, Banding())) == []
