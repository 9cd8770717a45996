"""Products of unit vectors by float32 GEMM, as candidates only: what they say is decided again, exactly.

L, R: unit vectors on the left and right; K: centroids; C: candidates. A GEMM's last bits depend on machine,
threads and tile, so a product is never believed within `error`; what comes out contains all that is wanted, whatever
those bits are.
"""

from typing import Any

import numpy as np
from numba import njit

Candidates = tuple[np.ndarray, np.ndarray]  # rows and columns of a product, in the order of rows, then columns


def error(width: int) -> float:
    """The most by which a float32 product of two rounded unit vectors is off, in any order of summation.

    Each factor is off by 2.1 · 2^-24 of itself, and a sum of `width` products by width · 2^-24 of the sum of
    magnitudes, which is at most 1 (Higham 2002, section 3.1). The rest is room for rounding a threshold.
    """
    return (width + 8) * 2.0**-24


def here(device: str) -> str:
    """A torch device, or `cpu` where this process has none: a job may have been made where there is one."""
    import torch

    return device if device == "cpu" or torch.cuda.is_available() else "cpu"


def placed(units_ND: np.ndarray, device: str) -> Any:
    """Unit vectors where they are multiplied: a tensor on a torch device; on `cpu` it shares their memory."""
    import torch

    # TF32 and bfloat16 would be off by more than `error`.
    assert torch.get_float32_matmul_precision() == "highest", "float32 products must be float32"
    return torch.from_numpy(units_ND).to(device)


def at_least(left: Any, right: Any, least: float, scratch: np.ndarray) -> Candidates:
    """Pairs (row_C, column_C) whose product is `least` or more; `scratch` is float32, for L · R numbers or more."""
    if left.device.type == "cpu":
        return _at_least(_products(left, right, scratch), np.float32(least))
    return at_least_on_device(left, right, least)


def near_best(rows: Any, centroids: Any, nearest: int, slack: float, scratch: np.ndarray) -> Candidates:
    """Pairs (row_C, cell_C) whose product is at most `slack` below the row's `nearest`-th best."""
    if rows.device.type == "cpu":
        return _near_best(_products(rows, centroids, scratch), nearest, np.float32(slack))
    return near_best_on_device(rows, centroids, nearest, slack)


def at_least_on_device(left: Any, right: Any, least: float) -> Candidates:
    """What `at_least` gives, by torch alone."""
    return _on_host((left @ right.T >= least).nonzero())


def near_best_on_device(rows: Any, centroids: Any, nearest: int, slack: float) -> Candidates:
    """What `near_best` gives, by torch alone."""
    products = rows @ centroids.T
    return _on_host((products >= products.topk(nearest).values[:, -1:] - slack).nonzero())


def _products(left: Any, right: Any, scratch: np.ndarray) -> np.ndarray:
    """The product on one core, in memory that was used before: fresh pages cost as much as multiplying.

    Jobs are what runs beside each other; several threads in each product would wait for each other.
    """
    import torch

    products_LR = scratch[: len(left) * len(right)].reshape(len(left), len(right))
    threads = torch.get_num_threads()  # of the calling thread alone
    torch.set_num_threads(1)
    try:
        torch.mm(left, right.T, out=torch.from_numpy(products_LR))
    finally:
        torch.set_num_threads(threads)
    return products_LR


def _on_host(found_C2: Any) -> Candidates:
    """Rows and columns as NumPy arrays."""
    row_C, column_C = found_C2.T.cpu().numpy()
    return row_C, column_C


@njit(cache=True, nogil=True)
def _at_least(products_LR, least):  # type: ignore[no-untyped-def]
    hits_L = np.zeros(len(products_LR), np.int64)
    for n in range(len(products_LR)):
        for product in products_LR[n]:  # without a branch, so that it is vectorised; hits are rare
            hits_L[n] += 1 if product >= least else 0
    return _collected(products_LR, hits_L, np.full(len(products_LR), least, np.float32))


@njit(cache=True, nogil=True)
def _near_best(products_LK, nearest, slack):  # type: ignore[no-untyped-def]
    hits_L = np.zeros(len(products_LK), np.int64)
    least_L = np.empty(len(products_LK), np.float32)
    best = np.empty(nearest, np.float32)
    for n in range(len(products_LK)):
        best[:] = -np.inf
        for product in products_LK[n]:
            if product > best[-1]:
                place = nearest - 1
                while place > 0 and best[place - 1] < product:
                    best[place] = best[place - 1]
                    place -= 1
                best[place] = product
        least_L[n] = best[-1] - slack
        for product in products_LK[n]:
            hits_L[n] += 1 if product >= least_L[n] else 0
    return _collected(products_LK, hits_L, least_L)


@njit(cache=True, nogil=True)
def _collected(products_LR, hits_L, least_L):  # type: ignore[no-untyped-def]
    """Where the products are that reach their row's least; each row has so many hits."""
    total = hits_L.sum()
    row_C, column_C = np.empty(total, np.int64), np.empty(total, np.int64)
    found = 0
    for n in range(len(products_LR)):
        if hits_L[n]:
            for m in range(products_LR.shape[1]):
                if products_LR[n, m] >= least_L[n]:
                    row_C[found], column_C[found] = n, m
                    found += 1
    return row_C, column_C
