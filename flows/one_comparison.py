"""One comparison of data sets, act by act, without Prefect: `flows/compare.py` wraps it where Prefect can be had.

check all ──> materialise each selection of one pool ──> train and judge (training/compare.py)
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flows.compared_sets import SPECS, NamedSet, SetsAsked, curation_s, open_sets
from flows.one_run import run
from flows.progress import View
from flows.services import Services
from schemas.any_training import read_training
from schemas.errors import InputError
from schemas.nearest import unknown_name
from training.compare import Do, Entrant, Progress, compare, require_comparable
from training.comparison.compared import Comparison

PRESETS = Path(__file__).parent.parent / "pipelines" / "training" / "presets"


@dataclass(frozen=True)
class ComparisonAsked:
    """What a comparison is asked for; `overrides` are of the training specification, a path or a preset's name."""

    sets: SetsAsked
    training: str
    seeds: int = 5
    overrides: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    output: str | None = None


@dataclass(frozen=True)
class Teller:
    """Who hears how it goes: sentences, a training's steps by its name, and the views of a run."""

    tell: Callable[[str], None] = lambda _: None
    steps: Callable[[str], Progress] | None = None
    views: Callable[[], list[View]] = list


def run_comparison(asked: ComparisonAsked, teller: Teller, do: Do = lambda _, work: work()) -> Comparison:
    """Materialise what is not there, train on each set, and judge. Raises InputError before anything is written."""
    training = read_training(training_file(asked.training), asked.overrides)
    require_comparable(training, asked.seeds, asked.metrics)
    store, found = open_sets(asked.sets)
    entrants: dict[str, Entrant] = {}

    def materialise(one: NamedSet, services: Services) -> None:
        result = run(asked.sets.request(one.text), teller.views(), services=services)
        manifest = result.manifest.with_name(f"{result.version}.json")  # which no later run replaces
        entrants[one.text] = Entrant(one.name, manifest, curation_s(store, manifest))

    with closing(Services(store, asked.sets.ray_address, wants_prefect=False)) as services:
        for number, one in enumerate(found, 1):
            if one.manifest is not None:
                entrants[one.text] = Entrant(one.name, one.manifest, curation_s(store, one.manifest))
                continue
            teller.tell(f"set {number} of {len(found)}: {one.name}, from {one.text}")
            do(f"materialise {one.name}", partial(materialise, one, services))
    output = Path(asked.output) if asked.output else store / "comparisons" / training.name
    return compare(
        [entrants[one.text] for one in found], training, asked.seeds, output,
        metrics=asked.metrics, progress=teller.steps, tell=teller.tell, do=do,
    )  # fmt: skip


def training_file(named: str) -> Path:
    """The training specification at a path, or DataComp's preset of that name (`datacomp-small`). Raises InputError."""
    if named.endswith(SPECS) or Path(named).exists():
        return Path(named)
    presets = {path.stem.replace("_", "-"): path for path in PRESETS.glob("datacomp_*.yaml")}
    if named not in presets:
        raise InputError(
            f"--train {named}: is neither a file nor a preset; {unknown_name(named, list(presets), 'presets')}"
        )
    return presets[named]
