"""Which of several curated sets teaches a model more: the same training on each, from the same seeds, and a verdict.

    manifests × seeds ──> one ordinary run folder each, <output>/<set>/seed-<n> ──> scores ──> comparison.json, .md

It knows manifests and a training specification, and nothing of how the sets came to be. Killed anywhere, the same call
goes on: what has its `outcome.json` is done, and what was trained on other terms is refused.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.any_training import AnyTraining
from schemas.errors import InputError, RunError
from schemas.nearest import unknown_name
from training.comparison.compared import Compared, Comparison
from training.comparison.outcome import AVERAGE, Outcome, device_name, read_outcome, scores_of, seconds_of_steps
from training.comparison.places import labels_of, places_of, require_places, samples_of, steps_of
from training.comparison.terms import require_equal_terms, terms_of, training_on
from training.comparison.verdict import judge, require_metrics

if TYPE_CHECKING:
    from training.curated_set import CuratedSet

Progress = Callable[[int, int, float, float], None]
Do = Callable[[str, Callable[[], None]], None]
"""Who does a piece of the work, as a task of Prefect does: called with the piece's name and the work."""


@dataclass(frozen=True)
class Entrant:
    """A set: its name here, the file of its version, and the seconds that its curation took, where that is known."""

    name: str
    manifest: Path
    curation_s: float | None = None


def compare(
    entrants: Sequence[Entrant],
    spec: AnyTraining,
    seeds: int,
    output: Path,
    *,
    metrics: Sequence[str] = (),
    progress: Callable[[str], Progress] | None = None,
    tell: Callable[[str], None] = lambda _: None,
    do: Do = lambda _, work: work(),
) -> Comparison:
    """Train on every set from so many seeds, those from the specification's own on; judge, and write the verdict.

    `metrics` (as `evaluation.metric`) are what is judged; `verdict.judge` says by what else. `progress` gives, by a
    training's name, what is told of its steps. Raises InputError before anything is trained, RunError later.
    """
    from training.curated_set import CuratedSet
    from training.device import device_of

    require_comparable(spec, seeds, metrics)
    sets = [CuratedSet(one.manifest, places_of(spec)[0].captions) for one in entrants]
    for one in sets:
        _refuse_small(spec, one)
    device = device_of(spec)
    terms = terms_of(spec, device.partition(":")[0])
    trainings = [
        _Training(entrant, one.manifest.version, training_on(spec, entrant.name, entrant.manifest, seed, output), terms)
        for seed in range(spec.seed, spec.seed + seeds)
        for entrant, one in zip(entrants, sets, strict=True)
    ]
    finished = [training.outcome() is not None for training in trainings]  # what does not fit is refused first
    outcomes: list[Outcome] = []
    for number, (training, is_done) in enumerate(zip(trainings, finished, strict=True), 1):
        name = f"{training.entrant.name}, seed {training.spec.seed}"
        tell(f"training {number} of {len(trainings)}: {name}" + (" is done" if is_done else ""))
        if not is_done:
            step = progress(training.spec.name) if progress is not None else None
            do(f"train {name}", training.work(step, device))
        outcomes.append(_known(training, metrics, outcomes))
    comparison = _compared(spec, entrants, sets, outcomes, terms, metrics, output)
    comparison.put()
    return comparison


def require_comparable(spec: AnyTraining, seeds: int, metrics: Sequence[str] = ()) -> None:
    """Raise InputError where sets cannot be compared by a specification, as far as that is known without them."""
    if seeds < 1:
        raise InputError(f"compare: --seeds {seeds}: must be at least 1, and 2 or more for an interval")
    require_places(spec)
    if not spec.evaluate:
        raise InputError(f"compare: training {spec.name} names nothing in `evaluate` that sets could be compared by")
    labels = labels_of(spec)
    for metric in metrics:
        label, point, _ = metric.partition(".")
        if metric != AVERAGE and (label not in labels or not point):
            said = unknown_name(label, labels, "evaluations are")
            raise InputError(f"--metric {metric}: write evaluation.metric, as in {labels[0]}.top1; {said}")


@dataclass(frozen=True)
class _Training:
    """One of the trainings, whose run folder keeps what came of it."""

    entrant: Entrant
    version: str
    spec: AnyTraining
    terms: Mapping[str, Any]

    def outcome(self) -> Outcome | None:
        """What came of it; None where it is not finished. Raises InputError where other data or terms made it."""
        found = read_outcome(self.spec.folder)
        if found is not None:
            then, now = {"version": found.version, **found.terms}, {"version": self.version, **self.terms}
            require_equal_terms(self.spec.folder, then, now)
        return found

    def work(self, progress: Progress | None, device: str) -> Callable[[], None]:
        """The training itself, from its last checkpoint if there is one."""

        def run() -> None:
            from training.train import train

            metrics = train(self.spec, progress=progress).metrics
            scores, seconds = scores_of(self.spec, metrics), seconds_of_steps(self.spec)
            made = Outcome(
                self.entrant.name, self.version, self.spec.seed, self.terms, scores, seconds, device_name(device)
            )
            made.put(self.spec.folder)

        return run


def _known(training: _Training, metrics: Sequence[str], others: Sequence[Outcome]) -> Outcome:
    """The outcome of a training that has just ended or was there, measured as the others were."""
    outcome = training.outcome()
    assert outcome is not None, "a training that ends puts its outcome"
    require_metrics(metrics, list(outcome.scores))
    if others and set(others[0].scores) != set(outcome.scores):
        apart = ", ".join(sorted(set(others[0].scores) ^ set(outcome.scores)))
        raise RunError(f"compare: {training.spec.folder} was not measured like the others ({apart}); see `evaluate`")
    return outcome


def _compared(
    spec: AnyTraining,
    entrants: Sequence[Entrant],
    sets: Sequence["CuratedSet"],
    outcomes: Sequence[Outcome],
    terms: Mapping[str, Any],
    metrics: Sequence[str],
    output: Path,
) -> Comparison:
    samples = samples_of(spec)
    found = []
    for entrant, one in zip(entrants, sets, strict=True):
        own = [outcome for outcome in outcomes if outcome.set == entrant.name]
        scores = {metric: tuple(outcome.scores[metric] for outcome in own) for metric in sorted(own[0].scores)}
        seconds, devices = tuple(outcome.seconds for outcome in own), tuple(outcome.device for outcome in own)
        found.append(
            Compared(
                entrant.name, one.manifest.version, str(entrant.manifest), one.rows, samples / one.rows, seconds,
                devices, entrant.curation_s, scores,
            )
        )  # fmt: skip
    verdict = judge({one.name: one.scores for one in found}, metrics)
    seeds = tuple(dict.fromkeys(outcome.seed for outcome in outcomes))
    return Comparison(output, spec.name, seeds, steps_of(spec), samples, tuple(found), verdict, terms)


def _refuse_small(spec: AnyTraining, one: "CuratedSet") -> None:
    batch = max(place.batch_size for place in places_of(spec))
    if one.rows < batch:
        raise InputError(
            f"compare: {one.location} has {one.rows:,} rows to train on, fewer than one batch of "
            f"{batch:,}; lower batch_size (--set batch_size=…), or select more"
        )
