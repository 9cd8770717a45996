"""The words of texts: normalised (Unicode NFKC, case-folded), then the longest runs of letters, digits and marks.

Those are Unicode's categories L, N and M; format characters (a soft hyphen, a joiner) and variation selectors are left
out. So `don't` is `don` and `t`, an emoji is no word, and a text in a script without spaces (Chinese, Japanese, Thai)
has one word between two marks of punctuation: there a join finds little more than equal sentences. The tables of
Unicode are this Python's.

N: texts; W: words of all texts, in order; B: bytes.
"""

import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

_ZERO_WIDTH_SPACE = 0x200B
_VARIATIONS, _MORE_VARIATIONS = range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0)


def normalised(text: str) -> str:
    """The words of a text in order, with a space between two."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.translate(_WORD_CHARACTERS).split())


def words_of(texts: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """How many words each of N texts (strings; NULL is empty) has, as int64 `counts_N`, and all words as binaries."""
    words_B, ends_W1, counts_N = _split(*bytes_of(_plain(texts)))
    return counts_N, binaries(words_B, ends_W1)


def bytes_of(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The bytes of large strings or binaries, and where the values begin and end in them: N + 1 numbers."""
    _, ends, data = array.buffers()
    ends_N1 = np.frombuffer(ends or bytes(8), np.int64)[array.offset : array.offset + len(array) + 1]
    return np.frombuffer(data or b"", np.uint8)[: ends_N1[-1]], ends_N1


def binaries(values: np.ndarray, ends_N1: np.ndarray) -> pa.Array:
    """The memory of an array, cut into N binaries at these bytes."""
    buffers = [None, pa.py_buffer(np.ascontiguousarray(ends_N1, np.int64)), pa.py_buffer(values)]
    return pa.Array.from_buffers(pa.large_binary(), len(ends_N1) - 1, buffers)


def _plain(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Texts whose words a look at single bytes finds: those of ASCII as they are, the others normalised."""
    array = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    array = array.cast(pa.large_string()).fill_null("")
    is_other_N = pc.invert(pc.string_is_ascii(array))
    others = [normalised(text) for text in array.filter(is_other_N).to_pylist()]
    return pc.replace_with_mask(array, is_other_N, pa.array(others, pa.large_string())) if others else array


class _WordCharacters(dict[int, int | str | None]):
    """What becomes of a code point: what words are made of stays, what is not seen goes, all else is a space."""

    def __missing__(self, code: int) -> int | str | None:
        category = unicodedata.category(chr(code))
        gone = (category == "Cf" and code != _ZERO_WIDTH_SPACE) or code in _VARIATIONS or code in _MORE_VARIATIONS
        self[code] = found = None if gone else code if category[0] in "LNM" else " "
        return found


_WORD_CHARACTERS = _WordCharacters()


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
