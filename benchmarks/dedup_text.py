"""What an exact join of captions by Jaccard costs, beside datasketch's MinHash LSH and a prefix filter in DuckDB.

    python benchmarks/dedup_text.py [--rows 1000000] [--threshold 0.8]

Captions are 10 different words of a Zipf vocabulary of 100,000; each tenth is another one with a word changed, which
is a Jaccard of 9 / 11. Figures are CPU time of one process. datasketch (set up for the threshold, 128 permutations)
and DuckDB get a sample whose rows are as often in pairs as those of the whole; datasketch's cost per caption does not
grow with rows as long as few collide, DuckDB's does. Recall is against the pairs of the exact join in the sample.
"""

import argparse
import itertools
import time
from collections.abc import Callable
from fractions import Fraction
from typing import TypeVar

import duckdb
import numpy as np
import pyarrow as pa

from curation.dedup.join import pairs_of
from curation.dedup.texts import jaccard, minhash
from curation.dedup.texts.minhash import Banding
from curation.dedup.texts.word_sets import WordSets, word_sets

_VOCABULARY, _WORDS = 100_000, 10
_SAMPLE = 50_000
_GOAL_US = 3.0

Pairs = set[tuple[int, int]]
Result = TypeVar("Result")


def main() -> None:
    """Print microseconds of CPU per caption, recall and ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--threshold", type=Fraction, default=Fraction("0.8"))
    wanted = parser.parse_args()
    words_NK = _captions(wanted.rows)
    texts = pa.array([" ".join(f"w{word:x}" for word in row) for row in words_NK.tolist()])
    _pairs(word_sets(texts[:1_000]), wanted.threshold)  # compiles
    words_us, sets = _timed(lambda: word_sets(texts), wanted.rows)
    join_us, pairs = _timed(lambda: _pairs(sets, wanted.threshold), wanted.rows)
    print(f"{wanted.rows:,} captions of {_WORDS} words, Jaccard >= {float(wanted.threshold)}: {len(pairs):,} pairs")
    print(f"words, sets, numbers        {words_us:8.2f} µs a caption")
    print(f"exact join                  {join_us:8.2f} µs (goal {_GOAL_US} µs), recall 1")
    sample = word_sets(pa.array([texts[n].as_py() for n in _sampled(sets, pairs, wanted.rows)]))
    exact = _pairs(sample, wanted.threshold)
    peers: dict[str, Callable[[WordSets, Fraction], Pairs]] = {
        "exact join": _pairs,
        "MinHash, rensa, 16 bands × 8": _sampled_pairs,
        "datasketch LSH": _datasketch,
        "DuckDB prefix filter": _duckdb,
    }
    print(f"of them {len(sample):,} with {len(exact):,} pairs:")
    ours_us = 0.0
    for name, peer in peers.items():
        peer_us, found = _timed(lambda peer=peer: peer(sample, wanted.threshold), len(sample))
        ours_us = ours_us or peer_us  # the exact join comes first
        assert found <= exact or peer is _datasketch, "a pair that is none"
        recall = len(found & exact) / max(len(exact), 1)
        print(f"  {name:29} {peer_us:6.2f} µs a caption, {peer_us / ours_us:6.1f} times; recall {recall:.3f}")


def _captions(rows: int) -> np.ndarray:
    """Numbers of words, words_NK: of each row's draws from Zipf's law the first 10 different ones."""
    random = np.random.default_rng(0)
    chances = 1 / np.arange(1, _VOCABULARY + 1)
    words_NK = np.empty((rows, _WORDS), np.int64)
    for row, drawn in enumerate(random.choice(_VOCABULARY, (rows, 3 * _WORDS), p=chances / chances.sum())):
        words_NK[row] = list(dict.fromkeys(drawn.tolist()))[:_WORDS]
    edited = random.choice(rows, rows // 10, replace=False)
    words_NK[edited] = words_NK[random.integers(0, rows, len(edited))]
    words_NK[edited, random.integers(0, _WORDS, len(edited))] = random.integers(0, _VOCABULARY, len(edited))
    return words_NK


def _sampled(sets: WordSets, pairs: Pairs, rows: int) -> list[int]:
    """Rows of whole pairs, and others, in the proportion of the whole."""
    text_U = np.empty(len(sets), np.int64)
    text_U[sets.set_N[::-1]] = np.arange(rows)[::-1]  # the first text of each set
    size = min(_SAMPLE, rows)
    share = size / rows
    paired = np.array(sorted(pairs), np.int64).reshape(-1, 2)
    chosen = paired[np.random.default_rng(1).random(len(paired)) < share].reshape(-1)
    others = np.random.default_rng(2).choice(rows, max(size - len(chosen), 0), replace=False)
    return list(dict.fromkeys([*text_U[chosen].tolist(), *others.tolist()]))


def _timed(function: Callable[[], Result], rows: int) -> tuple[float, Result]:
    begun = time.process_time()
    result = function()
    return (time.process_time() - begun) / rows * 1e6, result


def _pairs(sets: WordSets, threshold: Fraction) -> Pairs:
    values, jobs = jaccard.self_join(sets, threshold)
    blocks = [block[:2] for block in pairs_of(jobs, values)]
    return {pair for left, right in blocks for pair in zip(left.tolist(), right.tolist(), strict=True)}


def _sampled_pairs(sets: WordSets, threshold: Fraction) -> Pairs:
    values, jobs = minhash.self_join(sets, threshold, Banding())
    blocks = [block[:2] for block in pairs_of(jobs, values)]
    return {pair for left, right in blocks for pair in zip(left.tolist(), right.tolist(), strict=True)}


def _datasketch(sets: WordSets, threshold: Fraction) -> Pairs:
    from datasketch import MinHash, MinHashLSH

    tokens, starts = sets.tokens_T.tolist(), sets.starts_U1.tolist()
    as_bytes = [[str(token).encode() for token in tokens[a:b]] for a, b in itertools.pairwise(starts)]
    signatures = MinHash.bulk(as_bytes, num_perm=128)
    index = MinHashLSH(threshold=float(threshold), num_perm=128)
    found = set()
    for u, signature in enumerate(signatures):
        found |= {(v, u) for v in index.query(signature)}
        index.insert(u, signature, check_duplication=False)
    return found


def _duckdb(sets: WordSets, threshold: Fraction) -> Pairs:
    set_T = np.repeat(np.arange(len(sets)), np.diff(sets.starts_U1))
    place_T = np.arange(len(set_T)) - sets.starts_U1[set_T]
    size_T = np.diff(sets.starts_U1)[set_T]
    t = float(threshold)
    columns = {"u": set_T, "token": sets.tokens_T, "place": place_T, "size": size_T}
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("words", pa.table(columns))
        found = connection.execute(
            f"""with met as (select distinct a.u as one, b.u as other from words a join words b using (token)
                    where a.u < b.u and a.size >= {t} * b.size - 1e-9
                    and a.place <= a.size - ceil({t} * a.size - 1e-9)
                    and b.place <= b.size - ceil({t} * b.size - 1e-9)),
                shared as (select one, other, any_value(a.size + b.size) as sizes, count(*) as overlap
                    from met join words a on a.u = one join words b on b.u = other and b.token = a.token
                    group by one, other)
                select one, other from shared where overlap >= {t} * (sizes - overlap) - 1e-9"""
        ).fetchall()
    return set(found)


if __name__ == "__main__":
    main()
