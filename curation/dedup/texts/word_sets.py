"""Texts as sets of words, or of shingles (runs of words), numbered by value: what joins by Jaccard compare.

N: texts; U: distinct sets that are not empty; T: tokens (words or shingles) of all sets; V: distinct tokens.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from curation.dedup.ragged import Ragged
from curation.dedup.texts.words import binaries, bytes_of, words_of

_PRIME = np.uint64(0x100000001B3)  # FNV's


@dataclass(frozen=True)
class WordSets:
    """The distinct sets among N texts: set u holds `tokens_T[starts_U1[u]:starts_U1[u + 1]]`, ascending.

    Tokens are numbered by (in how many of the distinct sets, the token itself), the rarest first; sets by (size,
    tokens). So the numbers depend on which sets there are, and not on the order of texts or how often one comes.
    `set_N` is each text's set, -1 where it has no word. `hash_V` is a hash of each token that depends on it alone.
    """

    starts_U1: np.ndarray  # int64
    tokens_T: np.ndarray  # int32
    set_N: np.ndarray  # int64
    hash_V: np.ndarray  # uint64

    def __len__(self) -> int:
        return len(self.starts_U1) - 1

    @property
    def size_U(self) -> np.ndarray:
        """How many tokens each set has."""
        return np.diff(self.starts_U1)

    def of_texts(self, texts: slice) -> "WordSets":
        """The sets of some of the texts, in the same numbers of tokens: what two joined collections need."""
        set_N = self.set_N[texts]
        is_used_U = np.zeros(len(self), np.bool_)
        is_used_U[set_N[set_N >= 0]] = True
        used_U = np.flatnonzero(is_used_U)
        starts, tokens = Ragged(self.starts_U1, self.tokens_T).taken(used_U)
        number_U = np.append(np.cumsum(is_used_U) - 1, -1)  # -1 stays -1
        return WordSets(starts, tokens, number_U[set_N], self.hash_V)


def word_sets(texts: pa.Array | pa.ChunkedArray, words_per_token: int = 1) -> WordSets:
    """The sets of words of N texts (strings; NULL is empty), or of their shingles of `words_per_token` words.

    A text of fewer words than a shingle has one token, all its words.
    """
    assert words_per_token >= 1, words_per_token
    counts_N, words = words_of(texts)
    tokens, vocabulary = encoded(words)
    hash_V = hashes(*bytes_of(vocabulary))
    if words_per_token > 1:
        counts_N, words_RK = _shingles(counts_N, tokens, words_per_token)
        ends_R1 = words_RK.itemsize * words_per_token * np.arange(len(words_RK) + 1)
        tokens, vocabulary = encoded(binaries(words_RK.reshape(-1), ends_R1))
        words_VK = np.frombuffer(bytes_of(vocabulary)[0], words_RK.dtype).reshape(-1, words_per_token)
        hash_V = _hashes_of_shingles(words_VK, hash_V)
    return _numbered(*distinct_sets(*as_sets(counts_N, tokens)), hash_V)


def mixed(hash_N: np.ndarray, value_N: np.ndarray) -> np.ndarray:
    """Hashes (uint64) with one more value taken in; the order in which values come matters."""
    hash_N = (hash_N ^ value_N) * _PRIME
    return hash_N ^ (hash_N >> np.uint64(29))


def encoded(values: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Each value's number as int32, and the distinct values in order, which those numbers count."""
    coded = values.dictionary_encode()
    order_V = pc.sort_indices(coded.dictionary)
    number_V = np.empty(len(order_V), np.int32)
    number_V[order_V.to_numpy()] = np.arange(len(order_V), dtype=np.int32)
    return number_V[coded.indices.to_numpy()], coded.dictionary.take(order_V)


def _shingles(counts_N: np.ndarray, words_W: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """How many shingles of `width` words each text has, and their words; -1 fills that of a shorter text."""
    shingles_N = np.where(counts_N > 0, np.maximum(counts_N - width + 1, 1), 0)
    ends_N = np.cumsum(counts_N)
    end_R = np.repeat(ends_N, shingles_N)
    within_R = np.arange(len(end_R)) - np.repeat(np.cumsum(shingles_N) - shingles_N, shingles_N)
    first_R = np.repeat(ends_N - counts_N, shingles_N) + within_R
    words_RK = np.full((len(end_R), width), -1, ">i4")  # bytes in the order of numbers
    for k in range(width):
        inside_R = first_R + k < end_R
        words_RK[inside_R, k] = words_W[first_R[inside_R] + k]
    return shingles_N, words_RK


def _hashes_of_shingles(words_VK: np.ndarray, hash_W: np.ndarray) -> np.ndarray:
    """A hash of each shingle from the hashes of its words, in order."""
    hash_V = np.zeros(len(words_VK), np.uint64)
    for words_V in words_VK.T:
        hash_V = mixed(hash_V, np.where(words_V < 0, np.uint64(0), hash_W[words_V]))
    return hash_V


def distinct_sets(counts_N: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Collapse equal sets: each text's set (-1: empty), and the distinct sets, in order of their first texts."""
    has_words_N = counts_N > 0
    sets = binaries(tokens, 4 * np.append(0, np.cumsum(counts_N[has_words_N]))).dictionary_encode()
    set_N = np.full(len(counts_N), -1, np.int64)
    set_N[has_words_N] = sets.indices.to_numpy()
    distinct_B, ends_U1 = bytes_of(sets.dictionary)
    return set_N, ends_U1 // 4, distinct_B.view(np.int32)


def _numbered(set_N: np.ndarray, starts_U1: np.ndarray, tokens_T: np.ndarray, hash_V: np.ndarray) -> WordSets:
    """Number tokens, whose numbers are in order of their values, by frequency first; and sets by (size, tokens)."""
    order_V = np.argsort(np.bincount(tokens_T, minlength=len(hash_V)), kind="stable")
    number_V = np.empty(len(order_V), np.int32)
    number_V[order_V] = np.arange(len(order_V), dtype=np.int32)
    tokens_T = number_V[tokens_T]
    sort_each(starts_U1, tokens_T)
    sets = pa.table({"size": np.diff(starts_U1), "tokens": binaries(tokens_T.astype(">i4"), 4 * starts_U1)})
    order_U = pc.sort_indices(sets, sort_keys=[("size", "ascending"), ("tokens", "ascending")]).to_numpy()
    number_U = np.full(len(order_U) + 1, -1, np.int64)  # the last stands for -1, the empty set
    number_U[order_U] = np.arange(len(order_U))
    starts_U1, tokens_T = Ragged(starts_U1, tokens_T).taken(order_U)
    return WordSets(starts_U1, tokens_T, number_U[set_N], hash_V[order_V])


@njit(cache=True, nogil=True)
def as_sets(counts_N, tokens):  # type: ignore[no-untyped-def]
    """Each text's distinct tokens, ascending: how many it has, and the tokens of all texts."""
    tokens = tokens.copy()
    counts = np.empty_like(counts_N)
    read, written = 0, 0
    for n in range(len(counts_N)):
        _sort(tokens[read : read + counts_N[n]])
        begun = written
        for token in tokens[read : read + counts_N[n]]:
            if written == begun or tokens[written - 1] != token:
                tokens[written] = token
                written += 1
        read += counts_N[n]
        counts[n] = written - begun
    return counts, tokens[:written].copy()


@njit(cache=True, nogil=True)
def sort_each(starts_U1, tokens_T):  # type: ignore[no-untyped-def]
    """Sort each set's tokens in place."""
    for u in range(len(starts_U1) - 1):
        _sort(tokens_T[starts_U1[u] : starts_U1[u + 1]])


@njit(cache=True, nogil=True)
def _sort(tokens):  # type: ignore[no-untyped-def]
    """Sort in place; by insertion where there are few, which is most texts."""
    if len(tokens) > 32:
        tokens.sort()
        return
    for n in range(1, len(tokens)):
        token, at = tokens[n], n
        while at > 0 and tokens[at - 1] > token:
            tokens[at] = tokens[at - 1]
            at -= 1
        tokens[at] = token


@njit(cache=True, nogil=True)
def hashes(utf8_B, ends_V1):  # type: ignore[no-untyped-def]
    """A 64-bit hash of each word (FNV-1a, with its bits mixed at the end)."""
    hash_V = np.empty(len(ends_V1) - 1, np.uint64)
    for v in range(len(hash_V)):
        code = np.uint64(0xCBF29CE484222325)
        for b in range(ends_V1[v], ends_V1[v + 1]):
            code = (code ^ np.uint64(utf8_B[b])) * _PRIME
        code ^= code >> np.uint64(32)
        code *= np.uint64(0xD6E8FEB86659FD93)
        hash_V[v] = code ^ (code >> np.uint64(32))
    return hash_V
