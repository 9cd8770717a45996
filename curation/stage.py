"""What a plan is made of, and what of it travels to workers: steps with their columns and fingerprints."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from curation.operator import Operator
from curation.registry import OperatorRef
from curation.selection.step import DatasetStep
from curation.storage.store import FileRef, digest
from schemas.columns import IMAGE, Column
from schemas.errors import RunError

CAPTURE = "capture"  # the sidecar of pictures that came with the source


@dataclass(frozen=True)
class OperatorStep:
    """A row operator where it stands in a plan.

    `reads` and `adds` are columns under the operator's own names; `visible` maps those names to the plan's. A value
    that rides along from the source or from a barrier has no fingerprint of its own: `rides_on` names such columns,
    and their values in a part go into that part's fingerprint.
    """

    index: int
    label: str
    name: str
    ref: OperatorRef
    reads: tuple[Column, ...]
    adds: tuple[Column, ...]
    visible: Mapping[str, str]
    base_fingerprint: str
    rides_on: tuple[str, ...] = ()

    @cached_property
    def operator(self) -> Operator:
        """The operator itself, built from its parameters."""
        return self.ref.build()

    def __getstate__(self) -> dict[str, Any]:
        """Without the built operator: a worker builds its own."""
        return {name: value for name, value in self.__dict__.items() if name != "operator"}

    @property
    def values(self) -> tuple[Column, ...]:
        """The added columns that a sidecar holds: all but the picture itself."""
        return tuple(column for column in self.adds if column.name != IMAGE.name)

    @property
    def judges_by(self) -> dict[str, str]:
        """The columns that a policy of the operator looks at: its own names, and the plan's."""
        own = self.operator.judges_by if self.index >= 0 else ()
        return {name: self.visible[name] for name in own}

    @property
    def brings_pictures(self) -> bool:
        """Whether the operator brings the stored pictures."""
        return len(self.values) < len(self.adds)

    @property
    def reads_pictures(self) -> bool:
        """Whether the operator looks at the stored pictures."""
        return any(column.name == IMAGE.name for column in self.reads)

    @property
    def actor(self) -> bool:
        """Whether opening the operator is dear, so that its worker is kept."""
        return self.operator.resources.actor

    def fingerprint(self, riding: Mapping[str, str]) -> str:
        """The fingerprint in a part; `riding` maps the columns of `rides_on` to digests of their values there."""
        if not self.rides_on:
            return self.base_fingerprint
        return digest([self.base_fingerprint, {name: riding[name] for name in self.rides_on}])


@dataclass(frozen=True)
class Pinned:
    """A Parquet file that a step compares with, as it was when the plan was made."""

    path: Path
    sha256: str
    manifest: Path | None = None  # of the version of a curated set that it belongs to


@dataclass(frozen=True)
class SelectionStep:
    """A dataset step where it stands in a plan; `mark` names the boolean it adds instead of dropping."""

    index: int
    label: str
    name: str
    step: DatasetStep
    reads: tuple[str, ...]
    mark: str | None = None
    against: tuple[Pinned, ...] = ()


@contextlib.contextmanager
def named(step: SelectionStep) -> Iterator[None]:
    """Errors at run time inside of the block name the step."""
    try:
        yield
    except RunError as error:
        raise RunError(f"{step.label}: {error}") from error


@dataclass(frozen=True)
class Where:
    """Where the values of a visible column lie: `kind` is part, source, sidecar or mark."""

    column: Column
    kind: str
    step: int = -1  # of plan.steps, for sidecar and mark
    name: str = ""  # under the operator's own names


@dataclass(frozen=True)
class Stage:
    """The work between two barriers: operators and keeps, then the barrier that ends it (None: the end)."""

    steps: tuple[OperatorStep | SelectionStep, ...]
    barrier: SelectionStep | None = None

    @property
    def fingerprint(self) -> str:
        """Names the work of the stage's operators, whatever is decided between them."""
        return digest([step.base_fingerprint for step in self.steps if isinstance(step, OperatorStep)])[:16]


@dataclass(frozen=True)
class Plan:
    """A checked specification: every step built, every column typed, every signal fingerprinted."""

    steps: tuple[OperatorStep | SelectionStep, ...]
    columns: Mapping[str, Where]
    picture_step: int | None  # the step that brings pictures; -1: they came with the source
    needs_url: bool
    retry: tuple[str, ...] | None = None  # classes of failures to try again
    name: str = ""
    capture: OperatorStep | None = None
    tombstones: tuple[FileRef, ...] = ()  # of the store, when the plan was named

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The steps cut at barriers."""
        stages: list[Stage] = []
        current: list[OperatorStep | SelectionStep] = []
        for step in self.steps:
            if isinstance(step, SelectionStep) and step.step.barrier:
                stages.append(Stage(tuple(current), step))
                current = []
            else:
                current.append(step)
        return (*stages, Stage(tuple(current)))

    def producer(self, index: int) -> OperatorStep:
        """The operator step of that index; -1 is the capture of the source's pictures."""
        if index == -1:
            assert self.capture is not None
            return self.capture
        step = self.steps[index]
        assert isinstance(step, OperatorStep)
        return step

    @property
    def pictures(self) -> OperatorStep | None:
        """The step that brings the stored pictures, if any does."""
        return None if self.picture_step is None else self.producer(self.picture_step)
