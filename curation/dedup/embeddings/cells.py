"""Which cells a vector belongs to: those of the nearest centroids by cosine, a pure function of vector and centroids.

N: vectors; K: centroids; p: cells per vector; C: candidates; D: numbers per vector. A float32 product names the cells
that may be nearest; their cosines in float64, which have the same bits everywhere, say which are; of equal ones the
lower cell is the nearer.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from curation.dedup.embeddings.exact_cosine import Vectors, cosines, usable
from curation.dedup.embeddings.products import error, here, near_best, placed

_ROWS_PER_TILE = 1 << 12
_PRODUCTS_PER_TILE = 1 << 23  # 32 MB of float32


def assigned(
    vectors_ND: np.ndarray, centroids_KD: np.ndarray, device: str = "cpu", threads: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centroid of each float16 vector as cell_N (int32), and its cosine to it as cosine_N (float32).

    Vectors without a direction (NaN, infinity, all zero) have cell -1 and cosine NaN.
    """
    cell_N, cosine_N = np.full(len(vectors_ND), -1, np.int32), np.full(len(vectors_ND), np.nan, np.float32)
    rows_M = np.flatnonzero(usable(vectors_ND))
    vectors = Vectors.of(vectors_ND if len(rows_M) == len(vectors_ND) else vectors_ND[rows_M])
    cells_M1, cosine_M1 = nearest_cells(vectors, Vectors.of(centroids_KD), 1, device, threads)
    cell_N[rows_M], cosine_N[rows_M] = cells_M1[:, 0], cosine_M1[:, 0]
    return cell_N, cosine_N


def nearest_cells(
    vectors: Vectors, centroids: Vectors, nearest: int, device: str = "cpu", threads: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """The `nearest` cells of each vector, nearest first, as cells_Np (int32), and their cosines as cosine_Np (float64).

    There are at least `nearest` centroids. Memory beyond the result: at most 32 MB of products and 4,096 unit vectors
    per thread, and the centroids as float32.
    """
    device = here(device)
    rows, (cells, width) = len(vectors.norm_N), centroids.bits_ND.shape
    assert 1 <= nearest <= cells, f"{nearest} of {cells} cells"
    cells_Np, cosine_Np = np.empty((rows, nearest), np.int32), np.empty((rows, nearest), np.float64)
    centroid_units = placed(centroids.units(np.arange(cells), np.empty((cells, width), np.float32)), device)
    tile_rows = max(1, min(_ROWS_PER_TILE, _PRODUCTS_PER_TILE // cells))

    def fill(starts: range) -> None:
        units_TD = np.empty((tile_rows, width), np.float32)
        scratch = np.empty(tile_rows * cells if device == "cpu" else 0, np.float32)
        for start in starts:
            tile = np.arange(start, min(start + tile_rows, rows))
            units = placed(vectors.units(tile, units_TD), device)
            candidates = near_best(units, centroid_units, nearest, 2 * error(width), scratch)
            cells_Np[tile], cosine_Np[tile] = _nearest_of(*candidates, vectors, centroids, start, nearest)

    with ThreadPoolExecutor(threads, thread_name_prefix="cells") as pool:
        list(pool.map(fill, [range(0, rows, tile_rows)[thread::threads] for thread in range(threads)]))
    return cells_Np, cosine_Np


def _nearest_of(
    row_C: np.ndarray, cell_C: np.ndarray, vectors: Vectors, centroids: Vectors, first_row: int, nearest: int
) -> tuple[np.ndarray, np.ndarray]:
    """The first `nearest` candidates of each row of a tile by (cosine, cell); every row has as many or more."""
    cosine_C = cosines(vectors, centroids, first_row + row_C, cell_C)
    order_C = np.lexsort((cell_C, -cosine_C, row_C))
    row_C, cell_C, cosine_C = row_C[order_C], cell_C[order_C], cosine_C[order_C]
    starts = np.flatnonzero(np.append(True, row_C[1:] != row_C[:-1]))
    taken = starts[:, None] + np.arange(nearest)
    return cell_C[taken], cosine_C[taken]
