"""Texts as sets of words, or of shingles (runs of words), numbered by value: what joins by Jaccard compare.

A text is normalised (Unicode NFKC, case-folded) and its words are the longest runs of letters, digits and marks
(Unicode's categories L, N, M); format characters such as a soft hyphen are left out. So `don't` is `don` and `t`, an
emoji is no word, and a text in a script without spaces (Chinese, Japanese, Thai) has one word between two marks of
punctuation: there a join finds little more than equal sentences. The tables of Unicode are those of this Python.

N: texts; U: distinct sets that are not empty; T: tokens of all sets; V: distinct tokens; B: bytes.
"""

import unicodedata
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

_ZERO_WIDTH_SPACE = 0x200B
_PRIME = np.uint64(0x100000001B3)


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

    def of_texts(self, texts: slice) -> "WordSets":
        """The sets of some of the texts, in the same numbers of tokens: what two joined collections need."""
        set_N = self.set_N[texts]
        is_used_U = np.zeros(len(self), np.bool_)
        is_used_U[set_N[set_N >= 0]] = True
        used_U = np.flatnonzero(is_used_U)
        starts, tokens = _taken(self.starts_U1, self.tokens_T, used_U)
        number_U = np.append(np.cumsum(is_used_U) - 1, -1)  # -1 stays -1
        return WordSets(starts, tokens, number_U[set_N], self.hash_V)


def word_sets(texts: pa.Array | pa.ChunkedArray, words_per_token: int = 1) -> WordSets:
    """The sets of words of N texts (strings; NULL is empty), or of their runs of `words_per_token` words.

    A text of fewer words than a run has one token, all its words.
    """
    assert words_per_token >= 1, words_per_token
    counts_N, words = _words(_plain(texts))
    tokens, vocabulary = _encoded(words)
    hash_V = _hashes(*_buffers(vocabulary))
    if words_per_token > 1:
        counts_N, runs_RK = _runs(counts_N, tokens, words_per_token)
        tokens, vocabulary = _encoded(_binary(runs_RK.reshape(-1), 4 * np.arange(len(runs_RK) + 1) * words_per_token))
        hash_V = _hashes_of_runs(_buffers(vocabulary)[0].view(">i4").reshape(-1, words_per_token), hash_V)
    return _numbered(*_distinct(*_as_sets(counts_N, tokens)), hash_V)


def _plain(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Texts whose words a look at single bytes finds: ASCII ones as they are, others normalised to words and spaces."""
    array = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    array = array.cast(pa.large_string()).fill_null("")
    is_other_N = pc.invert(pc.string_is_ascii(array))
    others = [normalised(text) for text in array.filter(is_other_N).to_pylist()]
    return pc.replace_with_mask(array, is_other_N, pa.array(others, pa.large_string())) if others else array


def normalised(text: str) -> str:
    """The words of a text in order, normalised, with a space between two."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.translate(_WORD_CHARACTERS).split())


class _WordCharacters(dict[int, int | str | None]):
    """What becomes of a code point: letters, digits and marks stay, format characters go, all else is a space."""

    def __missing__(self, code: int) -> int | str | None:
        category = unicodedata.category(chr(code))
        gone = category == "Cf" and code != _ZERO_WIDTH_SPACE
        self[code] = found = code if category[0] in "LNM" else None if gone else " "
        return found


_WORD_CHARACTERS = _WordCharacters()


def _words(texts: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """How many words each text has, and the words of all texts in order, in small letters."""
    utf8_B, ends_N1 = _buffers(texts)
    words_B, ends, counts_N = _split(utf8_B, ends_N1)
    return counts_N, _binary(words_B, ends)


def _encoded(values: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Each value's number as int32, and the distinct values in order, which those numbers count."""
    encoded = values.dictionary_encode()
    order_V = pc.sort_indices(encoded.dictionary)
    number_V = np.empty(len(order_V), np.int32)
    number_V[order_V.to_numpy()] = np.arange(len(order_V), dtype=np.int32)
    return number_V[encoded.indices.to_numpy()], encoded.dictionary.take(order_V)


def _runs(counts_N: np.ndarray, words_W: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """How many runs of `width` words each text has, and their words; -1 fills the run of a shorter text."""
    runs_N = np.where(counts_N > 0, np.maximum(counts_N - width + 1, 1), 0)
    first_word_R = np.repeat(np.cumsum(counts_N) - counts_N - np.cumsum(runs_N) + runs_N, runs_N) + np.arange(runs_N.sum())
    words_RK = np.full((len(first_word_R), width), -1, ">i4")  # bytes in the order of numbers
    end_R = np.repeat(np.cumsum(counts_N), runs_N)
    for k in range(width):
        inside_R = first_word_R + k < end_R
        words_RK[inside_R, k] = words_W[(first_word_R + k)[inside_R]]
    return runs_N, words_RK


def _hashes_of_runs(words_VK: np.ndarray, hash_W: np.ndarray) -> np.ndarray:
    """A hash of each run from the hashes of its words, in order."""
    hash_V = np.zeros(len(words_VK), np.uint64)
    for words_V in words_VK.T:
        hash_V = (hash_V ^ np.where(words_V < 0, np.uint64(0), hash_W[words_V])) * _PRIME
        hash_V ^= hash_V >> np.uint64(29)
    return hash_V


def _distinct(counts_N: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Collapse equal sets: each text's set (-1: empty), and the distinct sets, in order of their first texts."""
    has_words_N = counts_N > 0
    sets = _binary(tokens, 4 * np.append(0, np.cumsum(counts_N[has_words_N]))).dictionary_encode()
    set_N = np.full(len(counts_N), -1, np.int64)
    set_N[has_words_N] = sets.indices.to_numpy()
    distinct_B, ends_U1 = _buffers(sets.dictionary)
    return set_N, ends_U1 // 4, distinct_B.view(np.int32)


def _numbered(set_N: np.ndarray, starts_U1: np.ndarray, tokens_T: np.ndarray, hash_V: np.ndarray) -> WordSets:
    """Number tokens, whose numbers are in order of their values, by frequency first; and sets by (size, tokens)."""
    order_V = np.argsort(np.bincount(tokens_T, minlength=len(hash_V)), kind="stable")
    number_V = np.empty(len(order_V), np.int32)
    number_V[order_V] = np.arange(len(order_V), dtype=np.int32)
    tokens_T = number_V[tokens_T]
    _sort_each(starts_U1, tokens_T)
    sets = pa.table({"size": np.diff(starts_U1), "tokens": _binary(tokens_T.astype(">i4"), 4 * starts_U1)})
    order_U = pc.sort_indices(sets, sort_keys=[("size", "ascending"), ("tokens", "ascending")]).to_numpy()
    number_U = np.full(len(order_U) + 1, -1, np.int64)  # the last stands for -1, the empty set
    number_U[order_U] = np.arange(len(order_U))
    return WordSets(*_taken(starts_U1, tokens_T, order_U), number_U[set_N], hash_V[order_V])


@njit(cache=True, nogil=True)
def _taken(starts_U1, tokens_T, chosen):  # type: ignore[no-untyped-def]
    """Some of the sets, in that order, as their starts and tokens."""
    starts = np.zeros(len(chosen) + 1, np.int64)
    for place in range(len(chosen)):
        starts[place + 1] = starts[place] + starts_U1[chosen[place] + 1] - starts_U1[chosen[place]]
    tokens = np.empty(starts[-1], np.int32)
    for place in range(len(chosen)):
        tokens[starts[place] : starts[place + 1]] = tokens_T[starts_U1[chosen[place]] : starts_U1[chosen[place] + 1]]
    return starts, tokens


def _buffers(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The bytes of strings or binaries with 64-bit offsets, and the N + 1 offsets."""
    _, ends, data = array.buffers()
    ends_N1 = np.frombuffer(ends or bytes(8), np.int64)[array.offset : array.offset + len(array) + 1]
    return np.frombuffer(data or b"", np.uint8), ends_N1


def _binary(values: np.ndarray, ends_N1: np.ndarray) -> pa.Array:
    """The memory of an array, cut into N binaries at these bytes."""
    buffers = [None, pa.py_buffer(np.ascontiguousarray(ends_N1, np.int64)), pa.py_buffer(values)]
    return pa.Array.from_buffers(pa.large_binary(), len(ends_N1) - 1, buffers)


@njit(cache=True, nogil=True)
def _split(utf8_B, ends_N1):  # type: ignore[no-untyped-def]
    """The words of each text: their bytes, ASCII letters made small, the ends of words, and how many each text has.

    Words are runs of ASCII letters and digits and of bytes above ASCII, of which only letters, digits and marks are
    left here (`_plain`).
    """
    words_B = np.empty(ends_N1[-1] - ends_N1[0], np.uint8)
    ends = np.empty(len(words_B) + 1, np.int64)  # more than there can be
    ends[0] = 0
    counts_N = np.zeros(len(ends_N1) - 1, np.int64)
    written, words = 0, 0
    for n in range(len(counts_N)):
        begun = written
        for b in range(ends_N1[n], ends_N1[n + 1]):
            byte = utf8_B[b]
            if 65 <= byte <= 90:  # A to Z
                byte += 32
            if byte >= 128 or 97 <= byte <= 122 or 48 <= byte <= 57:
                words_B[written] = byte
                written += 1
            elif written > begun:
                words += 1
                ends[words] = written
                counts_N[n] += 1
                begun = written
        if written > begun:
            words += 1
            ends[words] = written
            counts_N[n] += 1
    return words_B[:written].copy(), ends[: words + 1].copy(), counts_N


@njit(cache=True, nogil=True)
def _as_sets(counts_N, tokens):  # type: ignore[no-untyped-def]
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
def _sort_each(starts_U1, tokens_T):  # type: ignore[no-untyped-def]
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
def _hashes(utf8_B, ends_V1):  # type: ignore[no-untyped-def]
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
