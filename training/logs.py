"""Where figures of a training go: always `metrics.jsonl`, and the boards that the specification names."""

import contextlib
import importlib.util
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from schemas.course import Course
from schemas.errors import InputError

METRICS = "metrics.jsonl"
Figures = Mapping[str, Any]
_Tell = Callable[[Figures, int], None]


def require_boards(spec: Course) -> None:
    """Raise InputError where a board's package is not installed."""
    for name in spec.log:
        if importlib.util.find_spec(name) is None:
            raise InputError(
                f"training {spec.name}: log names {name}, whose package is not installed here; "
                f"install {name}, or take it out of `log`"
            )


class Log:
    """Writes a line per step, and tells the boards the same; only the first rank opens one."""

    def __init__(self, spec: Course, step: int) -> None:
        self._opened = contextlib.ExitStack()
        path = spec.folder / METRICS
        _cut(path, step)
        self._lines = self._opened.enter_context(open(path, "a", encoding="utf-8"))  # noqa: SIM115
        self._boards = [_BOARDS[name](spec, step, self._opened) for name in spec.log]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def write(self, figures: Figures, step: int) -> None:
        """Write what is known of a step; a number that is not finite is written as null."""
        finite = {name: _finite(value) for name, value in figures.items()}
        self._lines.write(json.dumps({"step": step, **finite}) + "\n")
        self._lines.flush()
        numbers = {name: value for name, value in finite.items() if isinstance(value, int | float)}
        for tell in self._boards:
            tell(numbers, step)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cut(path: Path, step: int) -> None:
    """Take out the lines of steps that will be done again, and one that was cut short."""
    kept = []
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
        with contextlib.suppress(ValueError):
            if json.loads(line)["step"] <= step:
                kept.append(line)
    path.write_bytes(b"".join(kept))


def _tensorboard(spec: Course, step: int, opened: contextlib.ExitStack) -> _Tell:
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter(str(spec.folder / "tensorboard"), purge_step=step + 1)  # type: ignore[no-untyped-call]
    opened.callback(writer.close)

    def tell(figures: Figures, at: int) -> None:
        for name, value in figures.items():
            writer.add_scalar(name, value, at)

    return tell


def _wandb(spec: Course, step: int, opened: contextlib.ExitStack) -> _Tell:
    import wandb  # type: ignore[import-not-found]

    run = wandb.init(project="pairmill", name=spec.name, dir=str(spec.folder), config=spec.model_dump(mode="json"))
    opened.callback(run.finish)
    return lambda figures, at: run.log(dict(figures), step=at)


def _mlflow(spec: Course, step: int, opened: contextlib.ExitStack) -> _Tell:
    import mlflow  # type: ignore[import-not-found]

    mlflow.set_experiment("pairmill")
    opened.enter_context(mlflow.start_run(run_name=spec.name))
    return lambda figures, at: mlflow.log_metrics(dict(figures), step=at)


_BOARDS: Mapping[str, Callable[[Course, int, contextlib.ExitStack], _Tell]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
}
