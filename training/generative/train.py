"""Train a vision-language model in stages: one page from the specification to a folder that transformers loads."""

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import InputError
from schemas.generative import GenerativeSpec, Images
from training.identity import differing
from training.run_folder import EVALUATIONS, MODEL, RESULTS, TrainResult, begun, put_json, put_record

if TYPE_CHECKING:
    from training.evaluate.asked import Asked
    from training.generative.build import Built
    from training.generative.course import StageCourse
    from training.generative.mixture import Source
    from training.ranks import Ranks

Progress = Callable[[int, int, float, float], None]


def train_generative(
    spec: GenerativeSpec, *, progress: Progress | None = None, tell: Callable[[str], None] = lambda _: None
) -> TrainResult:
    """Train stage by stage, from the last checkpoint if there is one; what is finished is not done again.

    `progress(step, steps, loss, samples_per_s)` is called after each step, `tell` with what each stage is about.
    Raises InputError before anything is written, RunError later. On a CPU the same specification and data give the
    same weights, bit by bit. Every rank calls it, and the first one writes.
    """
    import torch

    from training.device import device_of
    from training.evaluate.asked import open_asked
    from training.evaluate.running import require_pictures
    from training.generative.blip2_stage1_model import require_first_stages
    from training.generative.course import StageCourse
    from training.generative.families import family_named
    from training.generative.stage_data import curated_of, sources_of
    from training.logs import require_boards
    from training.ranks import asked_ranks, joined

    require_first_stages(spec)
    device = device_of(spec)
    if spec.threads is not None:
        torch.set_num_threads(spec.threads)
    courses = [StageCourse(spec, number) for number in range(len(spec.stages))]
    require_boards(courses[0])
    _require_even(spec, asked_ranks().count)
    asked = open_asked(spec.evaluate)
    for one in asked:
        require_pictures(one, family_named(spec.family))
    data = [sources_of(course) for course in courses]
    metrics: dict[str, Any] = {}
    with joined(device) as ranks:
        say = tell if ranks.first else lambda _: None
        for course, sources in zip(courses, data, strict=True):
            done = _stage(course, sources, device, ranks, progress if ranks.first else None, say)
            metrics[course.folder.name] = done
        ranks.wait()
    if ranks.first:  # the others need not wait for scores
        _point(spec.folder / MODEL, courses[-1].folder / MODEL)
        put_record(spec, [one for sources in data for one in curated_of(sources)])
        metrics |= _scores(spec, asked, device, tell)
        put_json(spec.folder / RESULTS, metrics)
    return TrainResult(spec.folder, spec.folder / MODEL, metrics)


def _require_even(spec: GenerativeSpec, ranks: int) -> None:
    for number, stage in enumerate(spec.stages):
        if stage.batch_size % (ranks * stage.accumulate):
            raise InputError(
                f"stages[{number}].batch_size: {stage.batch_size} cannot be shared evenly by {ranks} ranks in "
                f"{stage.accumulate} parts each (accumulate); take a multiple of {ranks * stage.accumulate}"
            )


def _scores(spec: GenerativeSpec, asked: Sequence["Asked"], device: str, tell: Callable[[str], None]) -> dict[str, Any]:
    """What the trained model scores in the specification's evaluations, noted beside the sets it was trained on."""
    from training.evaluate.noted import note_scores
    from training.evaluate.running import evaluate

    folder = spec.folder / MODEL
    found = evaluate(asked, folder, device, spec.folder / EVALUATIONS, tell=tell)
    note_scores(spec.folder, folder, found, sum(stage.steps for stage in spec.stages))
    return found


def _stage(
    course: "StageCourse",
    sources: Sequence["Source"],
    device: str,
    ranks: "Ranks",
    progress: Progress | None,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Train one stage, unless it is finished; what came of it."""
    import torch

    from training.checkpoint import State, restore
    from training.generative.batches import batches
    from training.generative.layout import encoder_of
    from training.generative.learner import learner_of
    from training.generative.parts import parameter_groups, prepare
    from training.generative.stage_data import curated_of, keep_versions
    from training.loop import run_steps
    from training.meters import peak_flops
    from training.optimizer import optimizer_of
    from training.uploads import uploaded

    identity = course.identity([one.identity for one in sources])
    finished = _finished(course, identity)
    if finished is not None:
        tell(f"{course.name}: is finished")
        return finished
    built = _start(course)
    encoder = encoder_of(built, course)
    tell(f"{course.name}: {prepare(built.model, built.family, course.stage, course.spec.seed + course.number)}")
    torch.manual_seed(course.spec.seed + course.number + 1000 * ranks.rank)
    with contextlib.ExitStack() as opened:
        learner = learner_of(built, course.spec, course.stage, torch.device(device), ranks)
        groups = [  # after FSDP2 has put each rank's shares in the place of the weights
            {**group, "scale": group["lr"] / course.lr}
            for group in parameter_groups(built.model, built.family, course.stage)
        ]
        state = State(learner.network, optimizer_of(groups, course))
        ranks.wait()  # until all have seen what was there before
        if ranks.first:
            opened.enter_context(begun(course, curated_of(sources)))
        if not restore(state, course.folder, identity, ranks) and ranks.first:
            keep_versions(course, sources)
        made = opened.enter_context(
            batches(
                sources, course.stage, encoder, state.position, seed=course.spec.seed, workers=course.spec.workers,
                refused=_refused(course.spec.image),
                rank=ranks.rank, ranks=ranks.count,
            )
        )  # fmt: skip
        peak = peak_flops(learner.device)
        most = None if peak is None else ("flops", peak * ranks.count)
        ready = opened.enter_context(uploaded(made, learner.device))
        run_steps(learner, state, ready, course, identity, progress=progress, most_per_s=most)
        _save(course, built, ranks)
        metrics = {
            "steps": state.step, "first_loss": state.first_loss, "last_loss": state.last_loss,
            "skipped_steps": state.skipped, **{f"left_out_{why}": n for why, n in sorted(state.left_out.items())},
        }  # fmt: skip
        if ranks.first:
            put_json(course.folder / RESULTS, {"identity": identity, "metrics": metrics})
        ranks.wait()
    return metrics


def _refused(images: Images) -> tuple[str, ...]:
    """Faults of a sample that stop the training; others are counted."""
    too_long = ("too_long",) if images.too_many == "refuse" else ()
    return (*too_long, "missing", "broken") if images.broken == "refuse" else too_long


def _finished(course: "StageCourse", identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """What came of a stage that is finished. Raises InputError where another specification finished it."""
    path = course.folder / RESULTS
    if not path.is_file():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    names = differing(record["identity"], json.loads(json.dumps(dict(identity))))
    if names:
        raise InputError(
            f"{course.folder}: was finished with another {', '.join(names)}; "
            f"name another `output`, or remove {course.folder} to train it anew"
        )
    found: dict[str, Any] = record["metrics"]
    return found


def _start(course: "StageCourse") -> "Built":
    """The model as the stage before left it, or as the specification begins."""
    from training.generative import blip2_stage1_model
    from training.generative.build import build, open_model

    before = replace(course, number=course.number - 1) if course.number else None
    left = before.folder / MODEL if before is not None else None
    if blip2_stage1_model.OBJECTIVE in (course.stage.objective, before.stage.objective if before else None):
        return blip2_stage1_model.start(course.spec, course.number, left)
    return build(course.spec) if left is None else open_model(left)


def _save(course: "StageCourse", built: "Built", ranks: "Ranks") -> None:
    """Write the model, put together from all ranks' shares where they have shared it out."""
    from training.generative.parts import prepare
    from training.generative.save import save_model

    weights = built.model.state_dict()
    if any(hasattr(value, "full_tensor") for value in weights.values()):
        whole = {n: v.full_tensor().cpu() if hasattr(v, "full_tensor") else v.cpu() for n, v in weights.items()}
        if ranks.first:
            built = _start(course)
            prepare(built.model, built.family, course.stage, course.spec.seed + course.number)
            built.model.load_state_dict(whole)
    if ranks.first:
        save_model(built, course.folder / MODEL)


def _point(link: Path, target: Path) -> None:
    """The run's model is its last stage's."""
    fresh = link.with_name(f".{link.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target.relative_to(link.parent))
    fresh.replace(link)
