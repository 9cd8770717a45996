"""Train a CLIP or SigLIP model on curated sets: one page from the specification to the scores."""

import contextlib
import copy
import fcntl
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import InputError
from schemas.pins import put_pin
from schemas.training import TrainingSpec

if TYPE_CHECKING:
    from torch import Tensor

    from training.checkpoint import State
    from training.curated_set import CuratedSet
    from training.evaluate.suite import Test
    from training.model import Model
    from training.ranks import Ranks

MODEL, AVERAGED, RECORD, RESULTS = "model", "model_ema", "training.json", "results.json"


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
    written, RunError later. On a CPU the same specification and data give the same weights, bit by bit. Where
    `torchrun` or `training.launch` started several processes, each calls this, and the first one writes.
    """
    import torch

    from training.batches import batches
    from training.checkpoint import State, restore
    from training.ema import Ema
    from training.evaluate.suite import open_tests
    from training.learner import Contrastive
    from training.lengths import require_phases
    from training.locks import lock_towers
    from training.logs import require_boards
    from training.loop import optimizer_for, run_steps
    from training.model import build_model
    from training.ranks import asked_ranks, joined

    sets = _sets(spec)
    _refuse_unfit(spec, sets, asked_ranks().count)
    require_boards(spec)
    tests = open_tests(spec.evaluate)
    device = _device(spec)
    if spec.threads is not None:
        torch.set_num_threads(spec.threads)

    torch.manual_seed(spec.seed)
    model = build_model(spec, device)
    require_phases(model.network, spec.phases)
    if spec.lock is not None:
        lock_towers(model.network, spec.lock)
    with joined(device) as ranks, contextlib.ExitStack() as opened:
        on_meta = replace(model, network=copy.deepcopy(model.network).to("meta"))
        learner = Contrastive(model, spec, ranks)
        ema = Ema(model.network, spec.ema) if spec.ema else None
        state = State(model.network, optimizer_for(model.network, spec), ema, position=(0,) * len(sets))
        if not ranks.first:
            torch.manual_seed(spec.seed + ranks.rank)  # what is dropped differs from rank to rank
        identity = _identity(spec, model, sets)
        ranks.wait()  # until all have seen what was there before
        if ranks.first:
            opened.enter_context(_begun(spec, sets))
        restore(state, spec.folder, identity, ranks)
        if ranks.first:
            _record(spec, sets)

        def scores() -> dict[str, Any]:
            return _scores(spec, on_meta, state, tests, device, ranks)

        made = opened.enter_context(
            batches(sets, spec, model.side_px, model.tokenize, state.position, rank=ranks.rank, ranks=ranks.count)
        )
        top = None if spec.phases else _top_samples_per_s(on_meta, device, ranks)  # operations vary with lengths
        run_steps(
            learner, state, made, spec, identity,
            progress=progress if ranks.first else None, measure=scores, top_samples_per_s=top,
        )  # fmt: skip
        metrics = {**_counts(spec, state), **scores()}
        if ranks.first:
            _write(spec.folder / RESULTS, metrics)
    return TrainResult(spec.folder, spec.folder / MODEL, metrics)


def _scores(
    spec: TrainingSpec, on_meta: "Model", state: "State", tests: Sequence["Test"], device: str, ranks: "Ranks"
) -> dict[str, Any]:
    """Save the weights as they are, and the averaged ones, and score both; all ranks call it, the first one does it."""
    import torch

    from training.evaluate.noted import note_scores
    from training.evaluate.suite import evaluate

    found: dict[str, Any] = {}
    kinds = [(MODEL, "", state.network.state_dict())]
    if state.ema is not None:
        kinds.append((AVERAGED, "_ema", state.ema.weights))
    for name, suffix, weights in kinds:
        whole, folder = _whole(weights), spec.folder / name
        if ranks.first:
            with torch.random.fork_rng(_gpus(device)):  # looking at a model does not change how it goes on
                _save(on_meta, whole, folder)
                scores = {test + suffix: record for test, record in evaluate(tests, folder, device).items()}
            note_scores(spec.folder, folder, scores, state.step)
            found |= scores
    ranks.wait()
    return found


def _whole(weights: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
    """Weights by name, those that the ranks have shared out put together."""
    return {name: value.full_tensor() if hasattr(value, "full_tensor") else value for name, value in weights.items()}


def _save(on_meta: "Model", weights: Mapping[str, "Tensor"], folder: Path) -> None:
    from training.model import save_model

    network = copy.deepcopy(on_meta.network)
    network.load_state_dict(weights, assign=True)
    save_model(replace(on_meta, network=network), folder)


def _gpus(device: str) -> list[int]:
    import torch

    return [torch.cuda.current_device()] if device.startswith("cuda") else []


def _top_samples_per_s(on_meta: "Model", device: str, ranks: "Ranks") -> float | None:
    """What the devices could do at most; None where that is not known."""
    import torch

    from training.meters import peak_flops, training_flops

    peak = peak_flops(torch.device(device))
    return peak * ranks.count / training_flops(on_meta, on_meta.tokenize(["a"]).shape[1]) if peak else None


def _sets(spec: TrainingSpec) -> list["CuratedSet"]:
    """The data to train on; a training that was stopped goes on with the versions that it began with."""
    from training.checkpoint import newest
    from training.curated_set import CuratedSet, open_sets

    if newest(spec.folder) is None or (spec.folder / RESULTS).is_file():
        return open_sets(spec.data)
    record = json.loads((spec.folder / RECORD).read_text(encoding="utf-8"))
    if record["spec"]["data"] != spec.model_dump(mode="json")["data"]:
        return open_sets(spec.data)
    return [CuratedSet(Path(one["manifest"]), one["captions"], one["weight"]) for one in record["data"]]


def _identity(spec: TrainingSpec, model: "Model", sets: Sequence["CuratedSet"]) -> dict[str, Any]:
    versions = [f"{s.manifest.name}@{s.manifest.version}" for s in sets]
    return {**spec.identity(), "model": dict(model.config), "versions": versions}


@contextlib.contextmanager
def _begun(spec: TrainingSpec, sets: Sequence["CuratedSet"]) -> Iterator[None]:
    """The run's folder, for this training alone; the versions it reads are pinned. Raises InputError."""
    spec.folder.mkdir(parents=True, exist_ok=True)
    with open(spec.folder / ".lock", "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"training {spec.name}: another training is at work in {spec.folder}; wait for it, or name another "
                "`output`"
            ) from None
        for one in sets:
            put_pin(one.path, one.manifest.version, f"the training run {spec.name} in {spec.folder.resolve()}")
        yield


def _record(spec: TrainingSpec, sets: Sequence["CuratedSet"]) -> None:
    """Note what is trained on what, for whoever goes on with it."""
    read = [{"manifest": str(one.path.resolve()), "weight": one.weight, "captions": dict(one.captions)} for one in sets]
    _write(spec.folder / RECORD, {"spec": spec.model_dump(mode="json"), "data": read})


def _counts(spec: TrainingSpec, state: "State") -> dict[str, Any]:
    return {
        "steps": state.step,
        "samples": state.step * spec.batch_size,
        "first_loss": state.first_loss,
        "last_loss": state.last_loss,
        "skipped_steps": state.skipped,
        "broken_pictures": state.broken,
        "empty_captions": state.empty,
    }


def _device(spec: TrainingSpec) -> str:
    import os

    import torch

    if spec.device == "cuda" and not torch.cuda.is_available():
        raise InputError(f"training {spec.name}: device is cuda and this machine has no GPU; say `device: auto`")
    if spec.device == "cpu" or not torch.cuda.is_available():
        return "cpu"
    place = int(os.environ.get("LOCAL_RANK", 0))
    if place >= torch.cuda.device_count():
        raise InputError(
            f"training {spec.name}: there are more ranks than the {torch.cuda.device_count()} GPUs of this machine"
        )
    torch.cuda.set_device(place)
    torch.set_float32_matmul_precision("high")  # logits in TF32; whoever wants all bits says `precision: fp32`
    return f"cuda:{place}"


def _refuse_unfit(spec: TrainingSpec, sets: Sequence["CuratedSet"], ranks: int) -> None:
    rows = sum(one.rows for one in sets)
    if rows < spec.batch_size:
        raise InputError(
            f"training {spec.name}: the data have {rows:,} rows, fewer than one batch of {spec.batch_size:,}; "
            "lower batch_size, or curate more"
        )
    if spec.batch_size % ranks:
        raise InputError(
            f"training {spec.name}: batch_size {spec.batch_size:,} cannot be shared out evenly among {ranks} ranks"
        )


def _write(path: Path, record: Any) -> None:
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(json.dumps(record, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
    fresh.replace(path)
