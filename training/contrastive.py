"""Train a CLIP or SigLIP model on curated sets: one page from the specification to the scores."""

import contextlib
import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import InputError
from schemas.training import TrainingSpec
from training.run_folder import AVERAGED, EXPORTS, MODEL, RESULTS, TrainResult, begun, put_json, put_record, sets_of

if TYPE_CHECKING:
    from torch import Tensor

    from training.checkpoint import State
    from training.curated_set import CuratedSet
    from training.evaluate.suite import Test
    from training.model import Model
    from training.ranks import Ranks


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
    from training.device import device_of
    from training.ema import Ema
    from training.evaluate.suite import open_tests
    from training.export import expressed
    from training.learner import Contrastive
    from training.lengths import require_phases
    from training.locks import lock_towers
    from training.logs import require_boards
    from training.loop import run_steps
    from training.model import build_model
    from training.optimizer import optimizer_for
    from training.ranks import asked_ranks, joined
    from training.uploads import uploaded

    sets = sets_of(spec)
    _refuse_unfit(spec, sets, asked_ranks().count)
    require_boards(spec)
    tests = open_tests(spec.evaluate)
    device = device_of(spec)
    if spec.threads is not None:
        torch.set_num_threads(spec.threads)

    torch.manual_seed(spec.seed)
    model = build_model(spec, device)
    require_phases(model.network, spec.phases)
    if "transformers" in spec.export:
        expressed(model)  # or it is said now that it cannot be
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
            opened.enter_context(begun(spec, sets))
        restore(state, spec.folder, identity, ranks)
        if ranks.first:
            put_record(spec, sets)

        def scores() -> dict[str, Any]:
            return _scores(spec, on_meta, state, tests, device, ranks)

        made = opened.enter_context(
            batches(
                sets, spec, model.side_px, model.tokenize, state.position,
                rank=ranks.rank, ranks=ranks.count, pinned=model.device.type == "cuda",
            )
        )  # fmt: skip
        ready = opened.enter_context(uploaded(made, model.device))
        top = None if spec.phases else _most_per_s(on_meta, device, ranks)  # operations vary with lengths
        run_steps(
            learner, state, ready, spec, identity,
            progress=progress if ranks.first else None, measure=scores, most_per_s=top,
        )  # fmt: skip
        metrics = {**_counts(spec, state), **scores()}
        if ranks.first:
            _export(spec)
            put_json(spec.folder / RESULTS, metrics)
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


def _export(spec: TrainingSpec) -> None:
    """Write the finished model in the other formats that the specification names."""
    if "transformers" in spec.export:
        from training.export import export_transformers
        from training.model import load_model

        export_transformers(load_model(spec.folder / MODEL, "cpu"), spec.folder / EXPORTS / "transformers")


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


def _most_per_s(on_meta: "Model", device: str, ranks: "Ranks") -> tuple[str, float] | None:
    """How many samples the devices could do at most; None where that is not known."""
    import torch

    from training.meters import peak_flops, training_flops

    peak = peak_flops(torch.device(device))
    if peak is None:
        return None
    return "samples", peak * ranks.count / training_flops(on_meta, on_meta.tokenize(["a"]).shape[1])


def _identity(spec: TrainingSpec, model: "Model", sets: Sequence["CuratedSet"]) -> dict[str, Any]:
    return {**spec.identity(), "model": dict(model.config), "versions": [one.label for one in sets]}


def _counts(spec: TrainingSpec, state: "State") -> dict[str, Any]:
    return {
        "steps": state.step,
        "samples": state.step * spec.batch_size,
        "first_loss": state.first_loss,
        "last_loss": state.last_loss,
        "skipped_steps": state.skipped,
        **{"broken_pictures": 0, "empty_captions": 0} | state.left_out,
    }


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
