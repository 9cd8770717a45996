"""What the page asks for: which rows, in which order, and which threshold."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from curation.analytics.statement import MOST_BYTES

Bound = Annotated[float | None, Field(allow_inf_nan=False)]


class _Wish(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Selection(_Wish):
    """Rows that all filters keep: ranges of signals (both ends included), values of categories, SQL, words."""

    ranges: Mapping[str, tuple[Bound, Bound]] = {}
    values: Mapping[str, tuple[str | None, ...]] = {}
    sql: str = Field("", max_length=MOST_BYTES)
    words: str = Field("", max_length=1000)


class Likeness(_Wish):
    """Rows in the order of their likeness to the picture of a key, or to a text."""

    column: str
    key: str | None = Field(None, pattern="^[0-9a-f]{32}$")
    text: str = Field("", max_length=2000)


class Page(_Wish):
    """So many rows of a selection from a place on; `by` is a signal, `like` what the rows should resemble."""

    selection: Selection = Selection()
    by: str | None = None
    order: Literal["desc", "asc"] = "desc"
    like: Likeness | None = None
    start: int = Field(0, ge=0)
    count: int = Field(60, ge=1, le=500)


class Threshold(_Wish):
    """A `keep` by one signal's bounds, or a `top`, where it stands before the step of that name (empty: at the end)."""

    selection: Selection = Selection()
    signal: str
    kind: Literal["keep", "top"]
    low: Bound = None
    high: Bound = None
    fraction: str | None = Field(None, max_length=40)
    rows: int | None = None
    per: str | None = None
    order: Literal["desc", "asc"] = "desc"
    before: str = ""
