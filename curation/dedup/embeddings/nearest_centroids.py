"""DataComp's image-based filter: rows whose cell of the pool's k-means holds a vector of a reference set.

N: rows; M: reference vectors; K: cells; D: numbers per vector. DataComp trains by L2 and assigns by
dot product with centroids that are not unit vectors; here a cell is the nearest centroid's by cosine in both.
"""

import numpy as np

from curation.dedup.embeddings.cells import assigned


def near_reference(
    vectors_ND: np.ndarray,
    reference_MD: np.ndarray,
    centroids_KD: np.ndarray,
    device: str = "cpu",
    threads: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Which float16 vectors share a cell with a reference vector, as kept_N (bool), and each vector's cell_N (int32).

    A vector without a direction has cell -1: in the pool it is not kept, in the reference it names no cell.
    """
    cell_N, _ = assigned(vectors_ND, centroids_KD, device, threads)
    reference_cell_M, _ = assigned(reference_MD, centroids_KD, device, threads)
    is_hit_K = np.zeros(len(centroids_KD) + 1, np.bool_)  # the last one is cell -1
    is_hit_K[reference_cell_M] = True
    is_hit_K[-1] = False
    return is_hit_K[cell_N], cell_N
