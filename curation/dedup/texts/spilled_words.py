"""The words of texts that outgrow memory, as numbers that are the same in every share of them: codes.

N: texts; V: distinct words of a share, or of a range of hashes; W: words with a code of their own; S: shares. A join
wants the rarest words first, and exact words. So a word's code is the hash of it, and what is not right or not good
enough that way has a code of its own above all hashes, in the order of frequency: words that are frequent, and the few
whose hash another word has too. Workers need to know these only, which are a few million however many words there are;
rare words come before them, in no particular order.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.dedup.exchange import edges_of_ranges, leave, rows_of
from curation.dedup.join import Values
from curation.dedup.ragged import Ragged, ragged_of
from curation.dedup.texts.word_sets import as_sets, distinct_sets, encoded, hashes
from curation.dedup.texts.words import binaries, bytes_of, words_of

FREQUENT = 1 << 22  # at most so many words are frequent
FIRST_OWN_CODE = 2**64 - 2**32  # what is no lower is no hash
_S_PER_BYTE = 5e-8  # measured: splitting, encoding, sorting


@dataclass(frozen=True)
class SharePaths:
    """Where a share lies: words in the order of hashes, in how many sets each is, and sets of their numbers."""

    words: Path
    frequency: Path
    sets: Path

    @classmethod
    def at(cls, path: Path) -> "SharePaths":
        """Files beside each other."""
        return cls(*(path.with_name(f"{path.name}-{name}") for name in ("words", "frequency", "sets")))


@dataclass(frozen=True)
class SplitShare:
    """Leave the distinct sets of words of some texts, and the words.

    Gives each text's set as set_N (-1: no word), where each range of hashes begins and ends among the words as
    edges_R1, and how many words all sets have together.
    """

    pieces: tuple[pa.Array, ...]  # of strings; NULL is empty
    to: SharePaths
    ranges: int

    def __getstate__(self) -> dict[str, object]:
        """A slice of an array would take all of the array's memory with it."""
        return self.__dict__ | {"pieces": (pa.concat_arrays(self.pieces),)}

    @property
    def work(self) -> float:
        """By the bytes of the texts."""
        return _S_PER_BYTE * sum(piece.nbytes for piece in self.pieces)

    def run(self, values: Values) -> tuple[np.ndarray, np.ndarray, int]:
        """Memory goes with the share."""
        counts_N, words = words_of(pa.chunked_array(self.pieces))
        tokens, vocabulary = encoded(words)
        set_N, starts_U1, tokens_T = distinct_sets(*as_sets(counts_N, tokens))
        hash_V = hashes(*bytes_of(vocabulary))
        order_V = np.argsort(hash_V, kind="stable")
        number_V = np.empty(len(order_V), np.int32)
        number_V[order_V] = np.arange(len(order_V), dtype=np.int32)
        tokens_T = number_V[tokens_T]
        _lists(vocabulary.take(order_V)).leave(self.to.words)
        frequency_V = np.bincount(tokens_T, minlength=len(hash_V))
        leave(self.to.frequency, [frequency_V], len(frequency_V), frequency_V)
        Ragged(starts_U1, tokens_T).leave(self.to.sets)
        return set_N, edges_of_ranges(hash_V[order_V], self.ranges), len(tokens_T)


@dataclass(frozen=True)
class OwnCodes:
    """Which words of a range of hashes need a code of their own: words and in how many of the shares' sets each is."""

    shares: tuple[tuple[SharePaths, int, int], ...]
    frequent: int  # a word in so many sets or more is
    work: float

    def run(self, values: Values) -> pa.Table:
        """Memory goes with the range."""
        words = [_binaries(ragged_of(paths.words, begin, end)) for paths, begin, end in self.shares]
        counts = [rows_of(paths.frequency, begin, end) for paths, begin, end in self.shares]
        table = pa.table(
            {
                "word": pa.chunked_array(words, pa.large_binary()),
                "count": pa.chunked_array([pa.array(one) for one in counts], pa.int64()),
            }
        )
        table = table.group_by("word", use_threads=False).aggregate([("count", "sum")])
        table = table.rename_columns({"count_sum": "count"}).select(["word", "count"])
        hash_V = hashes(*bytes_of(table["word"].combine_chunks()))
        return table.filter(pa.array(_has_no_hash(hash_V) | (table["count"].to_numpy() >= self.frequent)))


def frequent_from(words: int) -> int:
    """In how many sets a word must be to be frequent, where all sets have so many words together."""
    return max(words // FREQUENT, 2)


def own_codes(found: list[pa.Table]) -> Values:
    """The words with a code of their own, in the order of codes: by frequency, then by themselves; as `Ragged`."""
    table = pa.concat_tables(found).sort_by([("count", "ascending"), ("word", "ascending")])
    starts_W1, bytes_B = _lists(table["word"].combine_chunks())
    return starts_W1, bytes_B


def codes_of(words: Ragged, own: Values) -> tuple[np.ndarray, np.ndarray]:
    """The code of each word (uint64), and its hash."""
    place_V = pc.index_in(_binaries(words), value_set=_binaries(Ragged(*own)))
    hash_V = hashes(words.values, words.starts_X1)
    own_V = place_V.fill_null(0).to_numpy(zero_copy_only=False).astype(np.uint64) + np.uint64(FIRST_OWN_CODE)
    return np.where(place_V.is_valid().to_numpy(zero_copy_only=False), own_V, hash_V), hash_V


def _has_no_hash(hash_V: np.ndarray) -> np.ndarray:
    """Whose hash another word has, or is a code that words of their own have, bool_V."""
    order_V = np.argsort(hash_V, kind="stable")
    is_same = hash_V[order_V][1:] == hash_V[order_V][:-1]
    is_shared_V = np.zeros(len(hash_V), np.bool_)
    is_shared_V[order_V[1:][is_same]] = True
    is_shared_V[order_V[:-1][is_same]] = True
    return is_shared_V | (hash_V >= np.uint64(FIRST_OWN_CODE))


def _lists(words: pa.Array) -> Ragged:
    bytes_B, ends_V1 = bytes_of(words)
    return Ragged(ends_V1 - ends_V1[0], bytes_B[ends_V1[0] :])


def _binaries(words: Ragged) -> pa.Array:
    return binaries(words.values, words.starts_X1)
