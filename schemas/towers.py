"""What a training specification may say about the towers: what is locked (LiT), and how long their inputs are when."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Locked = Literal["all"] | Annotated[int, Field(ge=1)]


class Lock(BaseModel):
    """Towers that keep their weights (LiT, arXiv 2111.07991): `all` of one, or all but so many groups at its end."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    image: Locked | None = Field(None, description="of the picture tower: all, or how many groups at its end train")
    text: Locked | None = Field(None, description="of the text tower: all, or how many groups at its end train")


class Phase(BaseModel):
    """A stretch of the training with shorter inputs (CLIPA, arXiv 2305.07017) or masked patches (FLIP, 2212.00794)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    until: float = Field(gt=0, le=1, description="share of the steps after which the next phase begins; the last is 1")
    image_px: int | None = Field(None, ge=8, description="side of the pictures; by default the model's")
    text_tokens: int | None = Field(None, ge=4, description="tokens of a caption; by default the model's context")
    patch_dropout: float = Field(0.0, ge=0, lt=1, description="share of the patches that are left out")


def phase_at(phases: Sequence[Phase], step: int, steps: int) -> Phase:
    """The phase of a step, counted from 0; without phases a plain one. `until` is rounded down to whole steps."""
    return next(
        (phase for phase in phases if step < int(phase.until * steps)), phases[-1] if phases else Phase(until=1)
    )


def checked_phases(phases: Sequence[Phase]) -> tuple[Phase, ...]:
    """The phases, if their ends rise, and the last is the training's. Raises ValueError."""
    ends = [phase.until for phase in phases]
    if ends and (ends != sorted(set(ends)) or ends[-1] != 1):
        raise ValueError(f"phases: each `until` is greater than the one before it, and the last is 1 (here: {ends})")
    return tuple(phases)
