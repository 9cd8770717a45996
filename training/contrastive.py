"""Train a CLIP or SigLIP model on curated sets: one page from the specification to the scores."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import InputError
from schemas.pins import put_pin
from schemas.training import TrainingSpec

if TYPE_CHECKING:
    from training.curated_set import CuratedSet

MODEL, RECORD, RESULTS = "model", "training.json", "results.json"


@dataclass(frozen=True)
class TrainResult:
    """Where the results lie, the folder that open_clip loads as `local-dir:`, and what came out."""

    folder: Path
    model_folder: Path
    metrics: dict[str, Any]


def train_contrastive(
    spec: TrainingSpec, *, progress: Callable[[int, int, float, float], None] | None = None
) -> TrainResult:
    """Train as the specification says, from the last checkpoint if there is one, and evaluate.

    `progress(step, steps, loss, samples_per_s)` is called after each step. Raises InputError before anything is
    written, RunError later. On a CPU the same specification and data give the same weights, bit by bit.
    """
    import torch

    from training.batches import batches
    from training.checkpoint import State, restore
    from training.evaluate.noted import note_scores
    from training.evaluate.suite import evaluate, open_tests
    from training.loop import optimizer_for, run_steps
    from training.model import build_model, save_model

    sets = _sets(spec)
    _refuse_too_few(spec, sets)
    tests = open_tests(spec.evaluate)
    device = _device(spec)
    if spec.threads is not None:
        torch.set_num_threads(spec.threads)

    torch.manual_seed(spec.seed)
    model = build_model(spec, device)
    state = State(model.network, optimizer_for(model.network, spec), position=(0,) * len(sets))
    identity = {
        **spec.identity(),
        "model": dict(model.config),
        "versions": [f"{s.manifest.name}@{s.manifest.version}" for s in sets],
    }
    spec.folder.mkdir(parents=True, exist_ok=True)
    for one in sets:
        put_pin(one.path, one.manifest.version, f"the training run {spec.name} in {spec.folder.resolve()}")
    restore(state, spec.folder, identity)
    read = [{"manifest": str(one.path.resolve()), "weight": one.weight, "captions": dict(one.captions)} for one in sets]
    _write(spec.folder / RECORD, {"spec": spec.model_dump(mode="json"), "data": read})

    with batches(sets, spec, model.side_px, model.tokenize, state.position) as made:
        run_steps(model, state, made, spec, identity, progress)

    save_model(model, spec.folder / MODEL)
    metrics: dict[str, Any] = {
        "steps": state.step,
        "samples": state.step * spec.batch_size,
        "first_loss": state.first_loss,
        "last_loss": state.last_loss,
        "skipped_steps": state.skipped,
        "broken_pictures": state.broken,
    }
    metrics |= evaluate(tests, spec.folder / MODEL, device)
    _write(spec.folder / RESULTS, metrics)
    note_scores(spec.folder, spec.folder / MODEL, {test.name: metrics[test.name] for test in tests}, state.step)
    return TrainResult(spec.folder, spec.folder / MODEL, metrics)


def _sets(spec: TrainingSpec) -> list["CuratedSet"]:
    """The data to train on; a training that was stopped goes on with the versions that it began with."""
    from training.checkpoint import FILE
    from training.curated_set import CuratedSet, open_sets

    if not (spec.folder / FILE).is_file() or (spec.folder / RESULTS).is_file():
        return open_sets(spec.data)
    record = json.loads((spec.folder / RECORD).read_text(encoding="utf-8"))
    if record["spec"]["data"] != spec.model_dump(mode="json")["data"]:
        return open_sets(spec.data)
    return [CuratedSet(Path(one["manifest"]), one["captions"], one["weight"]) for one in record["data"]]


def _device(spec: TrainingSpec) -> str:
    import torch

    if spec.device == "cuda" and not torch.cuda.is_available():
        raise InputError(f"training {spec.name}: device is cuda and this machine has no GPU; say `device: auto`")
    return ("cuda" if torch.cuda.is_available() else "cpu") if spec.device == "auto" else spec.device


def _refuse_too_few(spec: TrainingSpec, sets: Sequence["CuratedSet"]) -> None:
    rows = sum(one.rows for one in sets)
    if rows < spec.batch_size:
        raise InputError(
            f"training {spec.name}: the data have {rows:,} rows, fewer than one batch of {spec.batch_size:,}; "
            "lower batch_size, or curate more"
        )


def _write(path: Path, record: Any) -> None:
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(json.dumps(record, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
    fresh.replace(path)
