"""`pairmill evaluate`: scores of a trained model, or of a file of predictions."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from flows.commands.examining import (
    answers_in_words,
    examined,
    examined_all,
    model_folder,
    opened_benchmark,
    opened_pictures,
    run_folder,
    wrong_option,
)
from flows.commands.verb import verb
from schemas.errors import InputError

_FORMATS = """\b
Predictions, without a model: --benchmark NAME --annotations FILE --predictions FILE.
With a MODEL that answers in words, it is asked the questions, and they are written there.
Annotations are the official files (or the folder that holds them), predictions the
benchmark's own results, each question answered once: a JSON list of objects, an object
of ids and answers, JSON lines, TSV or CSV.
vqav2           annotations (and questions); [{"question_id", "answer"}]
docvqa          {"data": [{"questionId", "answers"}]}; [{"questionId", "answer"}]
infographicvqa  as docvqa
chartqa         test_human.json and test_augmented.json; [{"imgname", "query", "answer"}]
coco_captions   captions_*.json or dataset_coco.json; [{"image_id", "caption"}]
refcoco         refs(unc).p and instances.json; [{"sent_id", "bbox" or "answer"}]
mmbench         the TSV; a table of index and prediction
mmmu            the subjects' Parquet files; {id: text}
mathvista       Parquet or testmini.json; {pid: {"extraction" or "response"}}
scienceqa       problems.json and pid_splits.json; {"results": {id: option}}, {id: text}
ai2d            a table, or questions/ and ai2d_test_ids.csv; [{"question_id", "answer"}]
videomme        Parquet, or the template; the template, with "response"
mvbench         the tasks' JSON files; {task: [texts]}, [{"question_id", "pred"}]
zeroshot        {"classes": [names], "labels": {id: name}};
                {id: name}, or {id: [names]}, best first; five give top5
retrieval       COCO's captions; {"scores": [[...]]} or .npy, a row per caption and a
                number per picture in that order; or rankings,
                {"text_to_image": {caption id: [image ids]}, "image_to_text":
                {image id: [caption ids]}}, best first, ten at least
"""
_PLACES = ("folder", "table", "webdataset", "parquet", "set")


@verb()
@click.argument("model", type=click.Path(), required=False)
@click.option("--model", "model_too", type=click.Path(), metavar="FOLDER", help="The same as MODEL.")
@click.option("--spec", type=click.Path(), help="A training specification whose `evaluate` is run; default: its own.")
@click.option("--benchmark", metavar="NAME",
              help="Of pictures: zeroshot (default), retrieval or captions; of --annotations: below.")  # fmt: skip
@click.option("--folder", type=click.Path(), help="Pictures: a sub-folder per class, or with .txt captions beside.")
@click.option("--table", type=click.Path(), help="Pictures: a CSV with the columns file, and label or caption.")
@click.option("--webdataset", metavar="TARS", help="Pictures: tars with cls or txt members.")
@click.option("--parquet", metavar="FILES", help="Pictures: Parquet with the columns image, and label or caption.")
@click.option("--curated", "set", type=click.Path(), help="Pictures: what a curated set holds out.")
@click.option("--classes", help="A text file of the classes' names, a line each, or imagenet; default: the labels.")
@click.option("--templates", help="A sentence with {}, a file of them, openai or simple; default: a photo of a {}.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto: a GPU if there is one.")
@click.option("--annotations", type=click.Path(path_type=Path), multiple=True,
              help="A benchmark's files: again for each further one, or a folder of them.")  # fmt: skip
@click.option("--images", type=click.Path(path_type=Path), help="The folder of a benchmark's pictures or videos.")
@click.option("--limit", type=click.IntRange(min=1), help="Ask only so many questions, and give no score.")
@click.option("--predictions", type=click.Path(path_type=Path),
              help="What somebody's model said; of MODEL: where to write it, not beside its training.")  # fmt: skip
@click.option("--official", is_flag=True, help="Count as the benchmark's own script does, where it is known to differ.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object last.")
def evaluate(
    model: str | None,
    model_too: str | None,
    spec: str | None,
    benchmark: str | None,
    device: str,
    annotations: tuple[Path, ...],
    images: Path | None,
    limit: int | None,
    predictions: Path | None,
    official: bool,
    as_json: bool,
    **asked: Any,
) -> None:
    """Score a trained model: by what its specification names, a benchmark's questions, or the pictures named here."""
    asked = {name: value for name, value in asked.items() if value is not None}
    model = model or model_too
    if annotations and not benchmark:
        raise click.UsageError("Name the --benchmark that the --annotations are of.")
    if model is None:
        if not (annotations and predictions and benchmark):
            raise click.UsageError("Name a MODEL, or --benchmark, --annotations and --predictions together.")
        from training.evaluate.benchmark import score_predictions

        _tell(benchmark, score_predictions(benchmark, annotations, predictions, official=official).record(), as_json)
        return
    if not any(place in asked for place in _PLACES) and not benchmark:
        _evaluate_all(Path(model), spec, device, as_json)
        return
    kind = benchmark or "zeroshot"
    if answers_in_words(Path(model)):
        opened = opened_benchmark(kind, annotations, images, limit) if annotations else opened_pictures(kind, asked)
        found = examined(Path(model), [opened], device, predictions, official=official)
    elif annotations or predictions:
        raise InputError(f"evaluate: {model}: answers no questions; --annotations are for models that answer in words")
    else:
        found = _scored(Path(model), [_evaluation(kind, asked)], device)
    _tell(kind, next(iter(found.values())), as_json)


evaluate.epilog = _FORMATS


def _evaluate_all(model: Path, spec: str | None, device: str, as_json: bool) -> None:
    """Run what a specification names: the one given, or that of the training which made the model."""
    from flows.wording import columns_of
    from schemas.any_training import read_training, training_of
    from schemas.generative import GenerativeSpec
    from training.evaluate.suite import table
    from training.run_folder import RECORD

    folder, record = model_folder(model), run_folder(model) / RECORD
    if spec is not None:
        read = read_training(spec)
    elif record.is_file():
        read = training_of(json.loads(record.read_text(encoding="utf-8"))["spec"])
    else:
        raise InputError(f"evaluate: {model}: has no {RECORD}; name pictures, or a specification by --spec")
    if not read.evaluate:
        raise InputError(f"evaluate: the specification of {read.name} names nothing in `evaluate`; name pictures here")
    if isinstance(read, GenerativeSpec):
        scores = examined_all(model, read.evaluate, device)
    else:
        scores = _scored(model, read.evaluate, device)
    if as_json:
        click.echo(json.dumps({"model": str(folder), "evaluations": scores}))
        return
    click.echo(columns_of([("evaluation", "metric", "score"), *table(scores)], right=(2,)))


def _scored(model: Path, asked: Any, device: str) -> dict[str, dict[str, Any]]:
    import torch

    from training.evaluate.noted import note_scores
    from training.evaluate.suite import evaluate as run
    from training.evaluate.suite import open_tests

    folder = model_folder(model)
    tests = open_tests(asked)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    scores = run(tests, folder, device, tell=lambda name: print(f"evaluates {name}", file=sys.stderr, flush=True))
    note_scores(run_folder(model), folder, scores)
    return scores


def _evaluation(kind: str, asked: dict[str, Any]) -> Any:
    """The evaluation that options name. Raises InputError."""
    from pydantic import ValidationError

    from schemas.training import Evaluation

    if kind not in ("zeroshot", "retrieval"):
        raise InputError(f"evaluate: --benchmark {kind}: of pictures, options can name zeroshot and retrieval")
    try:
        return Evaluation.model_validate({kind: asked})
    except ValidationError as error:
        raise wrong_option(error) from error


def _tell(benchmark: str, scores: dict[str, Any], as_json: bool) -> None:
    """One evaluation: as JSON with all it gives, or its metrics, and then a table of each kind of part."""
    if as_json:
        click.echo(json.dumps({"benchmark": benchmark, "metrics": scores}))
        return
    for name, value in scores.items():
        if not isinstance(value, dict):
            click.echo(f"{name}: {_number(value)}")
    for kind, parts in scores.items():
        if isinstance(parts, dict):
            from flows.wording import columns_of

            names = list(next(iter(parts.values())))
            rows = [(part, *(_number(found[name]) for name in names)) for part, found in parts.items()]
            head = (kind.removeprefix("per_"), *names)
            click.echo("\n" + columns_of([head, *rows], right=range(1, len(head))))


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


VERBS: tuple[Any, ...] = (evaluate,)
