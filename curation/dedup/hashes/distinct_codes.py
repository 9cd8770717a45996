"""The distinct ones among hash codes, and which of them each row holds: a function of the codes, not of their order.

N: rows; U: distinct codes; W: words of 64 bits in a code, 1 or 4. Codes are uint64 of shape (N,) or (N, W).
"""

import numpy as np


def distinct(codes_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct codes, sorted, and the position of each row's code among them as `group_N` (int64).

    Codes of several words are sorted by their words, the first one first.
    """
    words_NW = as_words(codes_N)
    order_N = np.argsort(words_NW[:, 0])  # np.unique is 35 times slower than a sort and a mask
    if words_NW.shape[1] > 1:
        _order_by_other_words(words_NW, order_N)
    sorted_NW = words_NW[order_N]
    is_first_N = np.ones(len(codes_N), np.bool_)
    is_first_N[1:] = (sorted_NW[1:] != sorted_NW[:-1]).any(axis=1)
    group_N = np.empty(len(codes_N), np.int64)
    group_N[order_N] = np.cumsum(is_first_N) - 1
    return sorted_NW[is_first_N].reshape(-1, *codes_N.shape[1:]), group_N


def as_words(codes_N: np.ndarray) -> np.ndarray:
    """Codes as words (N, W)."""
    assert codes_N.dtype == np.uint64, f"codes are uint64, not {codes_N.dtype}"
    words_NW = codes_N if codes_N.ndim == 2 else codes_N[:, None]
    assert words_NW.shape[1] in (1, 4), f"codes have 64 or 256 bits, not {64 * words_NW.shape[1]}"
    return words_NW


def _order_by_other_words(words_NW: np.ndarray, order_N: np.ndarray) -> None:
    """Sort further what is in order by its first word; runs of equal codes, the usual ties, are left alone."""
    sorted_NW = words_NW[order_N]
    ties = sorted_NW[1:, 0] == sorted_NW[:-1, 0]
    run_N = np.concatenate([[0], np.cumsum(~ties)]) if len(order_N) else order_N
    is_mixed_R = np.zeros(len(order_N), np.bool_)
    is_mixed_R[run_N[1:][ties & (sorted_NW[1:] != sorted_NW[:-1]).any(axis=1)]] = True
    places = np.flatnonzero(is_mixed_R[run_N])
    order_N[places] = order_N[places[np.lexsort(sorted_NW[places].T[::-1])]]
