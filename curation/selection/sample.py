"""`sample`: rows drawn at random, reproducibly: the baseline that every selection is compared with."""

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Self

import numpy as np
import pyarrow as pa
from pydantic import BeforeValidator, Field, model_validator

from curation.selection.decimals import as_written
from curation.selection.ordering import POSITION, query, with_positions
from curation.selection.step import ALONE, DatasetStep, Decision, Desk, Mark


class Sample(DatasetStep):
    """Keeps rows at random: an exact number or fraction, those with the lowest SHA-256 of seed and key."""

    rows: int | None = Field(default=None, ge=1, description="keep this many rows")
    fraction: Annotated[Decimal, BeforeValidator(as_written)] | None = Field(
        default=None, gt=0, le=1, description="keep exactly floor(fraction · N) of N rows"
    )
    seed: int = Field(default=0, description="another seed draws other rows; a smaller sample lies within a larger one")
    mark: Mark = None

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if (self.fraction is None) == (self.rows is None):
            raise ValueError("sample needs either 'rows' (such as 1000) or 'fraction' (such as 0.1)")
        return self

    @property
    def inputs(self) -> dict[str, str]:
        """Nothing but the key."""
        return {}

    def decide(self, rows: pa.Table, against: Sequence[pa.Table] = (), desk: Desk = ALONE) -> Decision:
        """Keep the rows with the lowest SHA-256 of `<seed><key>`: the seed in decimal digits, then the key's 32."""
        count = self._quota(rows.num_rows)
        drawn = query(
            f"select {POSITION} from rows order by sha256('{self.seed}' || key) limit {count}",
            rows=with_positions(rows),
        )
        kept_N = np.zeros(rows.num_rows, np.bool_)
        kept_N[drawn[POSITION]] = True
        return Decision(kept_N, f"not among the {count:,} of {rows.num_rows:,} rows drawn at random (seed {self.seed})")

    def _quota(self, rows: int) -> int:
        """How many of so many rows are kept."""
        if self.fraction is None:
            assert self.rows is not None
            return min(self.rows, rows)
        return int(Fraction(self.fraction) * rows)
