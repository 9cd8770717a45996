"""`pairmill evaluate`: predictions without a model, a trained folder by its own specification, and rows for `sql`."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from evaluation_cases import COLOURS, png, saved_model, spec_of
from small_store import add_version, new_store, usual_pairs
from test_contrastive import write_set

from curation.analytics.query import asked
from flows.command_line import cli
from schemas.evaluations import put_scores, read_scores
from training.evaluate.noted import note_scores

CLASSES = {"classes": ["a", "b"], "labels": {"1": "a", "2": "a", "3": "a", "4": "a", "5": "b"}}
COCO = {
    "images": [{"id": 7}, {"id": 8}],
    "annotations": [{"id": n, "image_id": image, "caption": f"{n}"} for n, image in enumerate((7, 7, 8, 8))],
}
SCORES = [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]]
RANKED = {
    "text_to_image": {str(n): [7, 8] if row[0] > row[1] else [8, 7] for n, row in enumerate(SCORES)},
    "image_to_text": {"7": [0, 3, 1, 2], "8": [2, 1, 3, 0]},
}


def pairmill(*words: str):
    return CliRunner().invoke(cli, list(words))


def scored(tmp_path: Path, benchmark: str, annotations: object, predictions: object, *more: str):
    for name, record in (("annotations", annotations), ("predictions", predictions)):
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    files = ("--annotations", str(tmp_path / "annotations.json"), "--predictions", str(tmp_path / "predictions.json"))
    return pairmill("evaluate", "--benchmark", benchmark, *files, *more)


def metrics(done) -> dict:
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout.splitlines()[-1])
    return {"benchmark": record["benchmark"]} | record["metrics"]


@pytest.mark.parametrize("more", [(), ("--official",)])
def test_zero_shot_predictions_of_known_scores(tmp_path, more):
    said = {"1": "a", "2": "a", "3": ["a", "b"], "4": "b", "5": "b"}
    found = metrics(scored(tmp_path, "zeroshot", CLASSES, said, "--json", *more))
    assert (found["benchmark"], found["top1"], found["mean_per_class_recall"]) == ("zeroshot", 0.8, 0.875)
    assert found["per_class"]["a"] == {"recall": 0.75, "pictures": 4}
    assert "top1: 0.8000" in scored(tmp_path, "zeroshot", CLASSES, said).stdout


def test_lists_of_five_give_top5_and_a_name_that_is_no_class_is_wrong(tmp_path):
    known = {"classes": list("abcdef"), "labels": {"1": "e", "2": "f"}}
    found = metrics(scored(tmp_path, "zeroshot", known, {"1": list("abcde"), "2": ["?", *"abcd"]}, "--json"))
    assert (found["top1"], found["top5"]) == (0.0, 0.5)


@pytest.mark.parametrize("said", [{"scores": SCORES}, RANKED, "npy"])
def test_retrieval_predictions_as_scores_matrix_and_rankings_are_the_same(tmp_path, said):
    if said == "npy":
        np.save(tmp_path / "scores.npy", np.array(SCORES))
        (tmp_path / "annotations.json").write_text(json.dumps(COCO))
        files = ("--annotations", str(tmp_path / "annotations.json"), "--predictions", str(tmp_path / "scores.npy"))
        found = metrics(pairmill("evaluate", "--benchmark", "retrieval", *files, "--json"))
    else:
        found = metrics(scored(tmp_path, "retrieval", COCO, said, "--json"))
    assert (found["text_to_image_recall@1"], found["text_to_image_recall@5"]) == (0.5, 1.0)
    assert found["image_to_text_recall@1"] == 1.0


@pytest.mark.parametrize(
    ("benchmark", "annotations", "predictions", "words"),
    [
        ("vqa", {}, {}, "benchmark: there is no 'vqa'; did you mean 'vqav2'? there are: ai2d, chartqa"),
        (
            "zeroshot",
            {},
            {},
            "an object of id and class; found an empty object, where classes is missing",
        ),
        ("zeroshot", CLASSES | {"labels": {"1": "z"}}, {"1": "a"}, "the label of 1: z is none of `classes`"),
        ("zeroshot", CLASSES, {"1": "a"}, "no prediction of '2', '3', '4' … (4 of 5 missing, 0 not asked for)"),
        ("zeroshot", CLASSES, dict.fromkeys("123456", "a"), "a prediction of '6', which is not asked"),
        ("zeroshot", CLASSES, {key: [] for key in "12345"}, "an empty list predicts nothing"),
        ("zeroshot", [], {}, "expected `classes`, a list, and `labels`, an object of id and class; found a list of 0"),
        ("retrieval", {"images": [{}]}, {}, "are not as COCO has captions"),
        ("retrieval", COCO | {"images": [*COCO["images"], {"id": 9}]}, {}, "has no caption, or no entry"),
        ("retrieval", COCO, {"scores": [[1.0, 2.0]]}, "have the shape (1, 2); there are 4 captions and 2 pictures"),
        ("retrieval", COCO, {"scores": [[1.0, float("nan")]] * 4}, "a score is not a finite number"),
        ("retrieval", COCO, {"scores": [[1.0], [1.0, 2.0]]}, "cannot be read as a matrix"),
        ("retrieval", COCO, {"image_to_text": {"7": []}}, "no prediction of '8'"),
        ("retrieval", COCO, {}, "need `scores`, or `image_to_text` and `text_to_image`"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_a_sentence(tmp_path, benchmark, annotations, predictions, words):
    done = scored(tmp_path, benchmark, annotations, predictions)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert words in done.stderr


@pytest.mark.parametrize(
    "words", [(), ("--benchmark", "zeroshot", "--annotations", "a"), ("m", "--annotations", "a", "--predictions", "p")]
)
def test_options_that_do_not_go_together_are_refused(words):
    assert pairmill("evaluate", *words).exit_code == 2


# ---------------------------------------------------------------- a trained folder, and sql


@pytest.fixture
def run(tmp_path) -> tuple[Path, Path]:
    """A store with a set, and the folder of a training on it, with pictures to evaluate on."""
    store = new_store(tmp_path)
    version = add_version(store, usual_pairs())
    for colour in COLOURS:
        (tmp_path / "pictures" / colour).mkdir(parents=True)
        (tmp_path / "pictures" / colour / "0.png").write_bytes(png(colour))
        (tmp_path / "pictures" / colour / "0.txt").write_text(f"a {colour} picture")
    folder = tmp_path / "run"
    saved_model(folder / "model")
    tests = [{kind: {"folder": str(tmp_path / "pictures")}} for kind in ("zeroshot", "retrieval")]
    record = {
        "spec": spec_of(evaluate=tests).model_dump(mode="json"),
        "data": [{"manifest": str(store.path(f"curated/demo/{version}.json")), "weight": 1.0, "captions": {}}],
    }
    (folder / "training.json").write_text(json.dumps(record))
    (folder / "results.json").write_text(json.dumps({"steps": 4}))
    return store.root, folder


def rows(store: Path, text: str) -> list[dict]:
    with asked(store, text) as answer:
        return answer.records()


def test_evaluate_runs_what_the_training_names_and_sql_sees_it(run):
    store, folder = run
    done = pairmill("evaluate", str(folder))
    assert done.exit_code == 0, done.output
    assert "image_to_text_recall@1" in done.stdout
    found = json.loads(pairmill("evaluate", str(folder), "--json").stdout.splitlines()[-1])
    assert found["model"] == str(folder / "model")
    top1 = found["evaluations"]["zeroshot"]["top1"]
    text = "SELECT name, training, step, value FROM evaluations WHERE metric = 'top1' AND \"class\" IS NULL"
    assert rows(store, text) == [{"name": "demo", "training": "small", "step": 4, "value": top1}]  # once, not twice
    text = "SELECT class, value FROM evaluations WHERE metric = 'recall' ORDER BY class"
    assert [row["class"] for row in rows(store, text)] == ["blue", "green", "red"]
    joined = "SELECT count(*) AS n FROM evaluations JOIN runs USING (name, version)"
    assert rows(store, joined)[0]["n"] == rows(store, "SELECT count(*) AS n FROM evaluations")[0]["n"] > 0


def test_pictures_that_options_name_are_scored_too(run):
    store, folder = run
    pictures = ("--folder", str(folder.parent / "pictures"))
    found = metrics(pairmill("evaluate", str(folder), "--benchmark", "retrieval", *pictures, "--json"))
    assert found["benchmark"] == "retrieval"
    assert found["text_to_image_recall@5"] == 1.0
    refused = pairmill("evaluate", str(folder), "--benchmark", "retrieval", *pictures, "--classes", "imagenet")
    assert refused.exit_code == 2
    assert "error: evaluate: --classes" in refused.stderr
    assert len(rows(store, "FROM evaluations")) == 6


def test_a_folder_without_its_training_needs_pictures_or_a_specification(run, tmp_path):
    _, folder = run
    (folder / "training.json").unlink()
    assert "holds no trained model; name the folder" in pairmill("evaluate", str(tmp_path)).stderr
    done = pairmill("evaluate", str(folder))
    assert done.exit_code == 2
    assert "name pictures, or a specification by --spec" in done.stderr
    spec = tmp_path / "spec.yaml"
    spec.write_text(spec_of(evaluate=[{"zeroshot": {"folder": str(tmp_path / "pictures")}}]).model_dump_json())
    assert pairmill("evaluate", str(folder), "--spec", str(spec)).exit_code == 0


def test_scores_are_noted_once_and_in_the_order_of_time(tmp_path):
    manifest = tmp_path / "v1.json"
    for step in (1, 2, 1):
        put_scores(manifest, "v1", "run", tmp_path / "model", step, {"zeroshot": {"top1": step / 10}})
    assert [(row["step"], row["value"]) for row in read_scores(tmp_path)] == [(1, 0.1), (2, 0.2)]
    assert note_scores(tmp_path, tmp_path, {"zeroshot": {"top1": 1.0}}) == 0  # no record of a training


def test_retrieval_over_what_a_curated_set_holds_out(run, tmp_path):
    _, folder = run
    rows = [
        (f"{n:032x}", {"png": png(colour, n), "txt": f"a {colour} picture".encode()})
        for n, colour in enumerate([*COLOURS] * 2)
    ]
    curated = write_set(tmp_path / "held_out", rows, per_shard=3, holdout=1)
    done = pairmill("evaluate", str(folder), "--benchmark", "retrieval", "--curated", str(curated), "--json")
    assert metrics(done)["image_to_text_recall@5"] == 1.0
