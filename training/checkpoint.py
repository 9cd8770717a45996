"""Checkpoints from which a training goes on as if it had never stopped, whatever number of ranks wrote them.

    <run>/checkpoints/step-000001000/record.json     what made it, and where it stood
                                     *.distcp        tensors, each rank's own (torch.distributed.checkpoint)

A checkpoint is written beside and renamed when all ranks have finished it: what has its name is whole.
"""

import contextlib
import json
import os
import pickle
import shutil
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save as save_tensors

from schemas.errors import InputError, RunError
from training.ema import Ema
from training.identity import differing
from training.ranks import ALONE, Ranks

FOLDER = "checkpoints"
_RECORD, _PREFIX, _UNFINISHED = "record.json", "step-", ".unfinished"
_NUMBERS = ("step", "position", "skipped", "left_out", "first_loss", "last_loss", "norms")
_METADATA = "torch.distributed.checkpoint.metadata"
_PLAIN = {
    *((_METADATA, name) for name in ("Metadata", "MetadataIndex", "TensorStorageMetadata", "TensorProperties")),
    *((_METADATA, name) for name in ("ChunkStorageMetadata", "StorageMeta", "_MEM_FORMAT_ENCODING")),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("pathlib", "PosixPath"),
}


@dataclass
class State:
    """Where a training stands: steps done, rows seen of each set, and what changes with each step."""

    network: torch.nn.Module
    optimizer: torch.optim.Optimizer
    ema: Ema | None = None
    step: int = 0
    position: tuple[int, ...] = ()
    skipped: int = 0
    left_out: dict[str, int] = field(default_factory=dict)  # samples, by reason
    first_loss: float | None = None
    last_loss: float | None = None
    norms: list[float] = field(default_factory=list)  # lengths of the last gradients, for the spike guard


def newest(run: Path) -> Path | None:
    """The folder of a run's last checkpoint."""
    return max((run / FOLDER).glob(f"{_PREFIX}*[0-9]"), default=None)


def save(state: State, run: Path, identity: Mapping[str, Any], keep: int = 1, ranks: Ranks = ALONE) -> None:
    """Write a checkpoint and remove all but the newest `keep`; whatever fails, the last good one stays.

    All ranks call it. Raises RunError where it cannot be written.
    """
    target = run / FOLDER / f"{_PREFIX}{state.step:09d}"
    fresh = target.with_name(_UNFINISHED)
    if ranks.first:
        shutil.rmtree(fresh, ignore_errors=True)
    ranks.wait()
    try:
        writer = FileSystemWriter(fresh, single_file_per_rank=True, sync_files=True)
        with _quietly():
            save_tensors(_tensors(state, ranks.rank), storage_writer=writer, no_dist=ranks.count == 1)
        if ranks.first:
            numbers = {name: getattr(state, name) for name in _NUMBERS}
            _write(fresh / _RECORD, {"identity": dict(identity), "numbers": numbers})
            _publish(fresh, target, keep)
    except (OSError, RuntimeError, CheckpointException) as error:
        if ranks.first:
            shutil.rmtree(fresh, ignore_errors=True)
        last = newest(run)
        left = f"the last good one is {last}" if last else "there is none before it"
        raise RunError(f"{target}: the checkpoint cannot be written ({_reason(error)}); {left}") from error
    ranks.wait()


def restore(state: State, run: Path, identity: Mapping[str, Any], ranks: Ranks = ALONE) -> bool:
    """Set the state to that of the run's last checkpoint; False where there is none.

    Raises InputError where another specification or other data made it, RunError where it is damaged.
    """
    path = newest(run)
    if path is None:
        return False
    try:
        record = json.loads((path / _RECORD).read_text(encoding="utf-8"))
        made_by, numbers = record["identity"], record["numbers"]
        reader = _PlainReader(path)
        stored = reader.read_metadata().state_dict_metadata
    except (OSError, ValueError, KeyError, EOFError, pickle.UnpicklingError) as error:
        raise _damaged(path, error) from error
    _refuse_another(path, made_by, json.loads(json.dumps(dict(identity))))
    tensors = _tensors(state, ranks.rank)
    for name in [name for name in tensors if name.startswith("random") and name not in stored]:
        del tensors[name]  # written by fewer ranks: this one's random numbers begin anew
    try:
        with _quietly():
            load(tensors, storage_reader=reader, no_dist=ranks.count == 1)
    except (OSError, RuntimeError, ValueError, CheckpointException) as error:
        raise _damaged(path, error) from error
    for name in _NUMBERS:
        setattr(state, name, numbers[name])
    state.position = tuple(state.position)
    if (random := tensors.get(f"random_{ranks.rank}")) is not None:
        torch.set_rng_state(random)
    if (random := tensors.get(f"random_gpu_{ranks.rank}")) is not None:
        torch.cuda.set_rng_state(random)
    return True


def _tensors(state: State, rank: int) -> dict[str, Any]:
    """All of a state that is stored as tensors, and nothing else; loading writes into them, where they are in use."""
    moments = {n: dict(state.optimizer.state[p]) for n, p in state.network.named_parameters() if p.requires_grad}
    frozen = {name for name, p in state.network.named_parameters() if not p.requires_grad}  # are as they were
    weights = {name: value for name, value in state.network.state_dict().items() if name not in frozen}
    tensors = {"model": weights, "optimizer": moments, f"random_{rank}": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors[f"random_gpu_{rank}"] = torch.cuda.get_rng_state()
    return tensors | ({"ema": state.ema.weights} if state.ema else {})


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without torch's warning that one process is one process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def _publish(fresh: Path, target: Path, keep: int) -> None:
    """Give a finished checkpoint its name, and let the oldest go."""
    _flush(fresh)
    fresh.rename(target)
    _flush(target.parent)
    for old in sorted(target.parent.glob(f"{_PREFIX}*[0-9]"))[:-keep]:
        shutil.rmtree(old, ignore_errors=True)


def _write(path: Path, record: Mapping[str, Any]) -> None:
    with open(path, "w", encoding="utf-8") as stream:
        json.dump(record, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_another(path: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    names = differing(then, now)
    if names:
        shown = "; ".join(f"{name}: {_short(then.get(name))} then, {_short(now.get(name))} now" for name in names)
        raise InputError(
            f"{path}: was made with another {', '.join(names)} ({shown}); "
            f"name another `output`, or remove {path.parent} to begin anew"
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _damaged(path: Path, error: BaseException) -> RunError:
    return RunError(f"{path}: cannot be read ({_reason(error)}); remove it to go on from the one before it")


def _reason(error: BaseException) -> str:
    """What stands behind an error: torch wraps it for all ranks, and of a full disk it complains otherwise."""
    while isinstance(error, CheckpointException) and error.failures:
        error = next(iter(error.failures.values()))[0]
    behind: BaseException | None = error
    while behind is not None and not isinstance(behind, OSError):
        behind = behind.__context__
    lines = str(behind or error).strip().splitlines()
    return f"{type(behind or error).__name__}: {lines[-1] if lines else 'no reason given'}"


class _PlainReader(FileSystemReader):
    """Reads tensors alone: torch keeps the table of contents as a pickle, and would unpickle whatever else it names."""

    def read_metadata(self, *_: Any, **__: Any) -> Metadata:
        """The table of contents. Raises UnpicklingError for what does not belong in one."""
        with open(Path(self.path) / ".metadata", "rb") as stream:
            metadata: Metadata = _PlainUnpickler(stream).load()
        for name, entry in metadata.state_dict_metadata.items():
            if not isinstance(entry, TensorStorageMetadata):
                raise pickle.UnpicklingError(f"{name} is no tensor")
        for place in metadata.storage_data.values():
            if Path(place.relative_path).name != place.relative_path:
                raise pickle.UnpicklingError(f"{place.relative_path} leads out of the checkpoint")
        return metadata


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _PLAIN or (module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} does not belong in a checkpoint's table of contents")
