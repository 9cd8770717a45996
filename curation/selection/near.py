"""`near`: rows in whose cell of a k-means a reference embedding lies (DataComp's image filter, arXiv 2304.14108)."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from pydantic import Field

from curation.selection.inputs import halves, is_vectors, stored_vectors
from curation.selection.step import ALONE, DatasetStep, Decision, Desk, Mark
from schemas.errors import InputError, RunError

VECTORS = "by_0"


class Near(DatasetStep):
    """Keeps the rows that share a cell of the pool's k-means with an embedding of a reference set."""

    by: str = Field(min_length=1, description="embedding column; NULL, zeros and NaN are dropped")
    reference: str | tuple[str, ...] = Field(description="Parquet or npy files, or manifests, globs too")
    column: str | None = Field(default=None, description="the reference's column; of the same name unless said")
    clusters: int = Field(ge=1, description="how many cells: DataComp has 100,000 for a pool of 1.28 billion")
    seed: int = Field(default=0, description="of the first centres")
    assume_equal: bool = Field(default=False, description="the reference's embeddings compare though others made them")
    mark: Mark = None

    @property
    def against(self) -> tuple[str, ...]:
        """The files to pin."""
        return (self.reference,) if isinstance(self.reference, str) else self.reference

    @property
    def against_columns(self) -> dict[str, str]:
        """The reference's embeddings."""
        return {VECTORS: self.column or self.by}

    @property
    def inputs(self) -> dict[str, str]:
        """Nothing that SQL computes."""
        return {}

    @property
    def stored_inputs(self) -> dict[str, str]:
        """The embedding."""
        return {VECTORS: self.by}

    def check_against(self, theirs: pa.Table, types: Mapping[str, pa.DataType]) -> None:
        """Refuse a reference whose column holds no embeddings, or of another width."""
        found, ours = theirs.schema.field(VECTORS).type, types[VECTORS]
        if not is_vectors(found):
            raise InputError(f"reference: column {self.column or self.by!r} is of type {found}, and no embedding")
        widths = [kind.byte_width // 2 for kind in (found, ours) if pa.types.is_fixed_size_binary(kind)]
        if len(set(widths)) > 1:
            raise InputError(f"reference: its embeddings have {widths[0]} numbers, those of {self.by!r} {widths[1]}")

    def decide(self, rows: pa.Table, against: Sequence[pa.Table] = (), desk: Desk = ALONE) -> Decision:
        """Keep the rows whose nearest centroid is the nearest of a reference vector. Raises RunError."""
        from curation.dedup.embeddings.nearest_centroids import near_reference
        from curation.selection.likeness.centroids import centroids_of
        from curation.selection.likeness.devices import device

        vectors_ND, _ = halves(rows[VECTORS])
        references = [halves(stored_vectors(table[VECTORS], self.column or self.by))[0] for table in against]
        widths = {vectors.shape[1] for vectors in (vectors_ND, *references) if len(vectors)}
        if len(widths) > 1:
            raise RunError(f"reference: embeddings of {' and '.join(map(str, sorted(widths)))} numbers do not compare")
        centroids_KD, facts = centroids_of(vectors_ND, self.clusters, self.seed, desk)
        if centroids_KD is None or not any(map(len, references)):
            return Decision(np.zeros(rows.num_rows, np.bool_), "there is no reference embedding to be near to")
        kept_N, cell_N = near_reference(
            vectors_ND, np.concatenate([r for r in references if len(r)]), centroids_KD, device()
        )
        nowhere = dict.fromkeys(np.flatnonzero(cell_N < 0).tolist(), f"{self.by} is NULL, or has no direction")
        reason = f"no reference embedding lies in its cell of {len(centroids_KD):,}"
        return Decision(kept_N, reason, row_reasons=nowhere, facts=facts)
