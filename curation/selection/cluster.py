"""`cluster`: cells of a spherical k-means over an embedding, as columns; `prefer: [cluster_cosine]` is SemDeDup's."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from pydantic import Field

from curation.selection.inputs import halves
from curation.selection.step import ALONE, DatasetStep, Decision, Desk
from schemas.columns import CLUSTER, CLUSTER_COSINE, Column

VECTORS = "by_0"


class Cluster(DatasetStep):
    """Adds each row's cell of a spherical k-means over an embedding, and its cosine to the cell's centre."""

    by: str = Field(min_length=1, description="embedding column; NULL, zeros and NaN belong to no cell")
    k: int = Field(ge=1, description="how many cells")
    seed: int = Field(default=0, description="of the first centres")

    @property
    def inputs(self) -> dict[str, str]:
        """Nothing that SQL computes."""
        return {}

    @property
    def stored_inputs(self) -> dict[str, str]:
        """The embedding."""
        return {VECTORS: self.by}

    @property
    def adds(self) -> tuple[Column, ...]:
        """The cell, and how near its centre is."""
        return (CLUSTER, CLUSTER_COSINE)

    def decide(self, rows: pa.Table, against: Sequence[pa.Table] = (), desk: Desk = ALONE) -> Decision:
        """Assign N rows to cells whose centroids are captured under the vectors that they were trained on."""
        from curation.dedup.embeddings.cells import assigned
        from curation.selection.likeness.centroids import centroids_of
        from curation.selection.likeness.devices import device, processors

        vectors_ND, _ = halves(rows[VECTORS])
        centroids_KD, facts = centroids_of(vectors_ND, self.k, self.seed, desk)
        everyone = np.ones(rows.num_rows, np.bool_)
        if centroids_KD is None:
            columns = {column.name: pa.nulls(rows.num_rows, column.type) for column in self.adds}
            return Decision(everyone, "", columns=columns)
        cell_N, cosine_N = assigned(vectors_ND, centroids_KD, device(), processors())
        none = cell_N < 0
        columns = {
            CLUSTER.name: pa.array(cell_N, CLUSTER.type, mask=none),
            CLUSTER_COSINE.name: pa.array(cosine_N, CLUSTER_COSINE.type, mask=none),
        }
        return Decision(everyone, "", columns=columns, facts=facts)
