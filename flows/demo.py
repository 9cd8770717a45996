"""`pairmill demo`: a small web on this machine, curated, and a model trained on the result.

    web ──> trusted pairs ──> scorer ──> curated set ──┬──> model A ──┐
     └────────────────────────> uncurated set ─────────┴──> model B ──┴──> which is better

With `captioner`, a vision-language model learns from the curated set too (flows/demo_captioner.py).
Everything is planted, so that the funnel can be held against the truth.
"""

import contextlib
import csv
import json
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curation.job import Result
from flows.demo_captioner import Described, teach_captioner
from flows.demo_web.clean import write_held_out, write_trusted
from flows.demo_web.server import DemoServer
from flows.demo_web.truth import StepTruth, held_against_truth
from flows.demo_web.web import make_web
from flows.one_run import Request, run
from flows.progress import View
from flows.services import Services
from schemas.errors import InputError
from schemas.generative import GenerativeSpec
from schemas.reading import read_yaml
from schemas.training import TrainingSpec

PIPELINES = Path(__file__).parent.parent / "pipelines"
_ROOT = "data/demo"


@dataclass
class Demo:
    """What the demo made, and what it says about it."""

    folder: Path
    curated: Result
    uncurated: Result
    truth: list[StepTruth]
    scores: dict[str, dict[str, float]] = field(default_factory=dict)  # curated and uncurated: accuracy by name
    captioner: Described | None = None
    seconds: float = 0.0

    def record(self) -> dict[str, Any]:
        """The demo as one JSON object."""
        return {
            "curated": self.curated.record(),
            "uncurated": self.uncurated.record(),
            "truth": [vars(step) for step in self.truth],
            "scores": self.scores,
            "captioner": self.captioner.record() if self.captioner else None,
            "seconds": round(self.seconds, 1),
        }


@dataclass(frozen=True)
class Teller:
    """Who hears how the demo goes."""

    act: Callable[[str], None]  # a new act begins
    made: Callable[[int, int], None]  # so many of so many pictures
    step: Callable[[int, int, float, float], None]  # training: step, steps, loss, samples per second
    views: Callable[[], list[View]]  # for a curation


def demo(
    folder: Path,
    teller: Teller,
    *,
    pairs: int = 3000,
    seed: int = 0,
    executor: Any = "ray",
    port: int = 0,
    captioner: bool = False,
) -> Demo:
    """Run the whole demo in a folder. The web is served from a free port of this machine; nothing else is asked."""
    started = time.monotonic()
    paths = _Paths(folder.absolute())
    with web_server(paths.root / "web", port) as server, closing(Services(paths.root)) as services:
        teller.act(f"makes a web of {pairs:,} pairs, with faults planted, and serves it at {server.base_url}")
        web = make_web(
            paths.root / "web", server.base_url, pairs=pairs, seed=seed, tell=lambda n: teller.made(n, pairs)
        )
        server.behaviours = web.behaviours
        write_trusted(paths.root / "trusted", pairs=max(256, pairs // 3), seed=seed)
        write_evaluation(paths.root / "held_out", pictures=max(100, pairs // 5), seed=seed)
        teller.act("curates the trusted pairs, and trains a small CLIP on them: the scorer")
        _curate(paths, "demo_trusted", teller, "in-process", services)
        _train(paths, "demo_scorer", teller, pairs)
        teller.act("curates the web")
        curated = _curate(paths, "demo", teller, executor, services)
        teller.act("takes the web as it is, for comparison; what was fetched is not fetched again")
        uncurated = _curate(paths, "demo_uncurated", teller, executor, services)
    scores = {}
    for name in ("curated", "uncurated"):
        teller.act(f"trains a CLIP on the {name} set")
        scores[name] = _train(paths, f"demo_{name}", teller, pairs)
    described = _teach_captioner(paths, teller, pairs) if captioner else None
    truth = held_against_truth(web.truth, curated.manifest)
    return Demo(paths.root, curated, uncurated, truth, scores, described, time.monotonic() - started)


@dataclass(frozen=True)
class _Paths:
    root: Path

    def moved(self, text: str) -> str:
        """A path of the demo's specifications, where this demo keeps it."""
        if text.startswith(_ROOT):
            return str(self.root) + text[len(_ROOT) :]
        return str(PIPELINES.parent / text) if text.startswith("pipelines/") else text


def web_server(folder: Path, port: int) -> DemoServer:
    """Serves the web where an earlier demo in this folder did: keys depend on it, and so what must be fetched anew."""
    file = folder / "port"
    if not port and file.is_file():
        with contextlib.suppress(OSError):  # somebody else has it now
            return DemoServer(folder / "files", int(file.read_text()))
    server = DemoServer(folder / "files", port)
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(str(server.port))
    return server


def _curate(paths: _Paths, name: str, teller: Teller, executor: Any, services: Services) -> Result:
    spec = PIPELINES / "curation" / f"{name}.yaml"
    overrides = [f"store={paths.root}"]
    text = spec.read_text()
    for place in ("source.table", "source.folder", "steps[10].clip_embed.model"):
        key = place.rsplit(".", 1)[1]
        found = [line for line in text.splitlines() if f"{key}: {_ROOT}" in line]
        if found:
            value = found[0].split(f"{key}: ", 1)[1].split(",")[0].rstrip("} ")
            overrides.append(f"{place}={paths.moved(value)}")
    request = Request(str(spec), overrides=tuple(overrides), executor=executor)
    return run(request, teller.views(), services=services)


def _train(paths: _Paths, name: str, teller: Teller, pairs: int) -> dict[str, float]:
    from training.contrastive import train_contrastive

    asked = read_yaml(PIPELINES / "training" / f"{name}.yaml", TrainingSpec).spec.model_dump(mode="json")
    asked = _moved(asked, paths)
    asked["samples"] = max(asked["batch_size"] * 30, asked["samples"] * min(pairs, 3000) // 3000)
    spec = TrainingSpec.model_validate(asked)
    try:
        result = train_contrastive(spec, progress=teller.step)
    except InputError:  # an earlier demo in this folder trained on another web, or for longer
        if not spec.folder.exists():
            raise
        shutil.rmtree(spec.folder)
        result = train_contrastive(spec, progress=teller.step)
    return {
        key: float(value["top1"])
        for key, value in result.metrics.items()
        if isinstance(value, dict) and "top1" in value
    }


def _teach_captioner(paths: _Paths, teller: Teller, pairs: int) -> Described:
    teller.act("trains a small ViT on the curated set, the captioner's eye")
    _train(paths, "demo_tower", teller, pairs)
    teller.act("trains a vision-language model on the curated set, and lets it describe pictures that it never saw")
    asked = read_yaml(PIPELINES / "training" / "demo_captioner.yaml", GenerativeSpec).spec.model_dump(mode="json")
    asked = _moved(asked, paths)
    for stage in asked["stages"]:
        stage["steps"] = max(20, stage["steps"] * min(pairs, 3000) // 3000)
    return teach_captioner(GenerativeSpec.model_validate(asked), paths.root / "held_out" / "pictures", teller.step)


def _moved(value: Any, paths: _Paths) -> Any:
    if isinstance(value, dict):
        return {key: _moved(inner, paths) for key, inner in value.items()}
    if isinstance(value, list):
        return [_moved(inner, paths) for inner in value]
    return paths.moved(value) if isinstance(value, str) else value


def write_evaluation(folder: Path, *, pictures: int, seed: int) -> None:
    """Labelled pictures as the zero-shot evaluation reads them: a CSV and prompt templates for each label."""
    held_out = write_held_out(folder, pictures=pictures, seed=seed)
    lines = [json.loads(line) for line in (held_out.folder / "captions.jsonl").read_text().splitlines()]
    for label, prompts in held_out.prompts.items():
        with open(folder / f"{label}.csv", "w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["file", "label"])
            writer.writerows([f"{held_out.folder.name}/{line['file']}", line[label]] for line in lines)
        (folder / f"{label}.txt").write_text("\n".join(json.loads(prompts.read_text())["templates"]) + "\n")
