"""Words, sets of words, and their exact join by Jaccard, against comparing all with all."""

import itertools
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.dedup.join import Job, Values, pairs_of
from curation.dedup.texts import jaccard
from curation.dedup.texts.jaccard import cross_join, self_join
from curation.dedup.texts.word_sets import WordSets, word_sets
from curation.dedup.texts.words import normalised, words_of

repeatably = settings(deadline=None, derandomize=True, max_examples=60)
thresholds = st.sampled_from([Fraction(n, 20) for n in range(2, 21)])
few_words = st.lists(st.sampled_from("abcdefghij"), max_size=8).map(" ".join)
text_lists = st.lists(few_words, max_size=25)
any_text = st.one_of(st.none(), st.text(max_size=12), st.text("aA1 _'-ßİ²é́\u00ad\u200b犬", max_size=12))
Pair = tuple[frozenset[str], frozenset[str]]


def sets_of(texts: list[str | None]) -> WordSets:
    return word_sets(pa.array(texts, pa.string()))


def members(sets: WordSets) -> list[frozenset[int]]:
    """The tokens of each set."""
    tokens, edges = sets.tokens_T.tolist(), sets.starts_U1.tolist()
    return [frozenset(tokens[a:b]) for a, b in itertools.pairwise(edges)]


def found(join: tuple[Values, list[Job]], threads: int = 1) -> list[tuple[int, int, int]]:
    values, jobs = join
    blocks = [zip(*(side.tolist() for side in block), strict=True) for block in pairs_of(jobs, values, threads)]
    return list(itertools.chain(*blocks))


def near(
    pairs: Iterator[tuple[tuple[int, frozenset[int]], tuple[int, frozenset[int]]]], threshold: Fraction
) -> list[tuple[int, int, int]]:
    """Of pairs of numbered sets those at the threshold, by the definition: (left, right, overlap)."""
    return sorted((a, b, len(x & y)) for (a, x), (b, y) in pairs if Fraction(len(x & y), len(x | y)) >= threshold)


def brute(sets: WordSets, threshold: Fraction) -> list[tuple[int, int, int]]:
    return near(itertools.combinations(enumerate(members(sets)), 2), threshold)


def captions(seed: int, count: int, vocabulary: int, most: int = 12) -> list[str]:
    """Captions of Zipf's words, half of them edits of others."""
    random = np.random.default_rng(seed)
    drawn = [random.zipf(1.3, random.integers(1, most + 1)) % vocabulary for _ in range(count)]
    for n in range(0, count, 2):
        drawn[n] = drawn[random.integers(0, count)].copy()
        drawn[n][random.integers(0, len(drawn[n]))] = random.integers(0, vocabulary)
    return [" ".join(f"w{word}" for word in caption) for caption in drawn]


@repeatably
@given(st.lists(any_text, max_size=12))
def test_the_words_of_a_text_are_its_runs_of_letters_digits_and_marks(texts: list[str | None]) -> None:
    counts, words = words_of(pa.array(texts, pa.string()))
    spelled = iter(word.decode() for word in words.to_pylist())
    assert [list(itertools.islice(spelled, count)) for count in counts.tolist()] == [
        normalised(text or "").split() for text in texts
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A red-brown DOG, don't!", "a red brown dog don t"),
        ("snake_case 3.5mm", "snake case 3 5mm"),
        ("ＦＵＬＬ width ﬁne x²", "full width fine x2"),
        ("Straße STRASSE", "strasse strasse"),
        ("e\u0301 \u00e9 हिन्दी", "é é हिन्दी"),
        ("soft\u00adhyphen zero\u200bwidth", "softhyphen zero width"),
        ("犬が走る。海辺", "犬が走る 海辺"),
        ("🏖️ \0 -- ", ""),
    ],
)
def test_normalised_words_are_those_that_are_declared(text: str, words: str) -> None:
    assert normalised(text) == words.replace("é", "\u00e9")


@repeatably
@given(st.lists(any_text, max_size=12))
def test_a_texts_set_holds_its_words_and_a_text_without_words_has_none(texts: list[str | None]) -> None:
    sets = sets_of(texts)
    spelled = [frozenset(normalised(text or "").split()) for text in texts]
    assert [number < 0 for number in sets.set_N.tolist()] == [not words for words in spelled]
    for (a, x), (b, y) in itertools.combinations(enumerate(spelled), 2):
        if x and y:
            mine, theirs = (members(sets)[sets.set_N[n]] for n in (a, b))
            assert (len(x & y), len(x | y)) == (len(mine & theirs), len(mine | theirs))
    assert len(set(members(sets))) == len(sets) == len(set(spelled) - {frozenset()})


@repeatably
@given(text_lists, st.randoms(use_true_random=False), st.integers(1, 3))
def test_sets_are_numbered_by_value_whatever_the_order_and_number_of_texts(
    texts: list[str], random: object, width: int
) -> None:
    again = texts * 2
    random.shuffle(again)  # type: ignore[attr-defined]
    one, other = word_sets(pa.array(texts, pa.string()), width), word_sets(pa.array(again, pa.string()), width)
    for name in ("starts_U1", "tokens_T", "hash_V"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist()
    assert dict(zip(texts, one.set_N.tolist(), strict=True)) == dict(zip(again, other.set_N.tolist(), strict=True))
    frequency = np.bincount(one.tokens_T, minlength=len(one.hash_V))
    assert (np.diff(frequency) >= 0).all()
    assert (np.diff(one.starts_U1) > 0).all()
    assert (np.diff(one.starts_U1, n=2) >= 0).all()


def test_shingles_are_runs_of_words_and_a_short_text_is_one() -> None:
    texts = ["a b c d", "a b c", "b c d", "a b", "a b", "b a", None, "a"]
    sets = word_sets(pa.array(texts), 3)
    held = [members(sets)[number] if number >= 0 else frozenset() for number in sets.set_N.tolist()]
    assert [len(one) for one in held] == [2, 1, 1, 1, 1, 1, 0, 1]
    assert held[0] == held[1] | held[2]
    assert held[3] == held[4] != held[5]
    assert len(sets.hash_V) == len(set(sets.hash_V.tolist())) == 5


def test_a_tokens_hash_is_the_same_beside_other_texts() -> None:
    for width in (1, 2):
        alone, beside = (word_sets(pa.array(texts), width) for texts in (["a b c"], ["z z a", "a b c", "0 c d b"]))
        of_text = [
            sorted(sets.hash_V[list(members(sets)[sets.set_N[n]])].tolist()) for sets, n in ((alone, 0), (beside, 1))
        ]
        assert of_text[0] == of_text[1]


@repeatably
@given(text_lists, thresholds)
def test_a_self_join_finds_what_comparing_all_with_all_finds_each_pair_once(
    texts: list[str], threshold: Fraction
) -> None:
    sets = sets_of(texts)  # type: ignore[arg-type]
    assert sorted(found(self_join(sets, threshold))) == brute(sets, threshold)


@repeatably
@given(text_lists, text_lists, thresholds)
def test_a_join_of_two_collections_finds_what_comparing_all_with_all_finds(
    texts: list[str], others: list[str], threshold: Fraction
) -> None:
    both = sets_of([*texts, *others])
    mine, theirs = both.of_texts(slice(len(texts))), both.of_texts(slice(len(texts), None))
    expected = near(itertools.product(enumerate(members(mine)), enumerate(members(theirs))), threshold)
    assert sorted(found(cross_join(mine, theirs, threshold))) == expected


@pytest.mark.parametrize("cost", [0, 1, jaccard._ENTRY_COST_PAIRS, 10**9])
@pytest.mark.parametrize("threshold", ["0.1", "0.5", "0.75", "0.8", "0.9", "1"])
def test_the_pairs_are_the_same_however_early_lists_are_cut(
    cost: int, threshold: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaccard, "_ENTRY_COST_PAIRS", cost)
    for vocabulary in (9, 40):
        sets = sets_of(captions(vocabulary, 120, vocabulary))
        assert sorted(found(self_join(sets, Fraction(threshold)))) == brute(sets, Fraction(threshold))
        mine, theirs = sets.of_texts(slice(40)), sets.of_texts(slice(30, None))
        expected = near(itertools.product(enumerate(members(mine)), enumerate(members(theirs))), Fraction(threshold))
        assert sorted(found(cross_join(mine, theirs, Fraction(threshold)))) == expected


@pytest.mark.parametrize(
    ("threshold", "one", "other"),
    [("0.8", 4, 5), ("0.6", 3, 5), ("0.9", 9, 10), ("0.7", 7, 10), ("0.55", 11, 20), ("0.3", 3, 10), ("0.1", 1, 10)],
)
def test_a_jaccard_exactly_at_the_threshold_is_in_and_one_just_above_it_is_not(
    threshold: str, one: int, other: int
) -> None:
    words = [f"w{n}" for n in range(other)]
    sets = sets_of([" ".join(words[:one]), " ".join(words)])
    assert found(self_join(sets, Fraction(threshold))) == [(0, 1, one)]
    assert found(self_join(sets, Fraction(threshold) + Fraction(1, 10**15))) == []


def test_threads_and_sizes_of_jobs_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    sets = sets_of(captions(5, 400, 30))
    expected = found(self_join(sets, Fraction("0.5")))
    assert found(self_join(sets, Fraction("0.5")), threads=3) == expected
    monkeypatch.setattr(jaccard, "_ENTRIES_PER_JOB", 50)
    monkeypatch.setattr(jaccard, "_PAIRS_PER_BLOCK", 7)
    values, jobs = self_join(sets, Fraction("0.5"))
    blocks = list(pairs_of(jobs, values, 2))
    assert len(jobs) > 5
    assert all(job.work >= 0 for job in jobs)
    assert max(len(left) for left, *_ in blocks) == 7
    assert sorted(found((values, jobs))) == sorted(expected)


def test_pairs_hang_on_the_sets_alone() -> None:
    texts = captions(6, 150, 25)

    def pairs(texts: list[str]) -> set[tuple[frozenset[str], frozenset[str]]]:
        sets = sets_of(texts)
        words = {number: frozenset(text.split()) for number, text in zip(sets.set_N.tolist(), texts, strict=True)}
        return {(words[a], words[b]) for a, b, _ in found(self_join(sets, Fraction("0.6")))}

    assert pairs(texts[::-1] + texts) == pairs(texts)
    # A text that shares no word with the others changes the frequencies and no pair.
    assert pairs([*texts, "quite another text"]) == pairs(texts)


def test_a_lower_threshold_keeps_every_pair() -> None:
    sets = sets_of(captions(7, 200, 40))
    falling = [set(found(self_join(sets, Fraction(n, 10)))) for n in range(10, 0, -1)]
    assert all(smaller <= larger for smaller, larger in itertools.pairwise(falling))


def test_no_texts_and_no_words_give_no_pairs() -> None:
    for texts in ([], [None, "", "!"], ["one"], ["one", None]):
        sets = sets_of(texts)
        assert found(self_join(sets, Fraction("0.8"))) == []
        assert found(cross_join(sets, sets.of_texts(slice(0)), Fraction("0.8"))) == []


def test_a_threshold_that_is_none_is_our_own_mistake() -> None:
    for threshold in (0, 2):
        with pytest.raises(AssertionError):
            self_join(sets_of(["a"]), Fraction(threshold))
