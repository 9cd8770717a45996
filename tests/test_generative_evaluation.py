"""Benchmarks put to a model: what it says is scored as anybody's predictions, and is not asked twice."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmark_cases import CASES, write
from click.testing import CliRunner, Result
from PIL import Image
from small_training import pairs, write_set
from test_families import ANSWERS, QUESTION, batch_of, overfit, shown
from tiny_vlm import built, picture, spec_of

from flows.command_line import cli
from schemas.errors import InputError, RunError
from schemas.evaluations import read_scores
from schemas.generative import Questioned
from training.evaluate.asked import of_benchmark, open_asked
from training.evaluate.benchmark import score_predictions
from training.evaluate.running import digest_of, evaluate, put_predictions
from training.generative.build import Built, open_model
from training.generative.parts import freeze
from training.generative.save import save_model
from training.generative.train import train_generative

pytestmark = pytest.mark.usefixtures("one_thread")
FILES = {
    "docvqa": ["documents/a.png"], "scienceqa": ["test/1/image.png"], "chartqa": ["1.png"],
    "coco_captions": ["COCO_val2014_1.jpg", "COCO_val2014_2.jpg"], "mmbench": [], "mmmu": [], "mathvista": [],
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows a few pictures."""
    torch.set_num_threads(1)
    one = built("llava")
    freeze(one.model, one.family, ["encoder", "connector", "llm"])
    overfit(one, *batch_of(one))
    folder = tmp_path_factory.mktemp("models") / "run" / "model"
    save_model(one, folder)
    return folder


@pytest.fixture(scope="module")
def opened(model: Path) -> Built:
    return open_model(model)


def case(folder: Path, name: str) -> tuple[list[Path], Path]:
    """The benchmark's files, and the folder of its pictures."""
    known, images = folder / "annotations", folder / "images"
    known.mkdir()
    for file, content in CASES[name].files.items():
        write(known / file, content)
    for number, file in enumerate(FILES[name]):
        (images / file).parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(images / file)
    return [known], images


def known_pictures(folder: Path) -> Path:
    """The pictures that the model knows, with their captions beside."""
    folder.mkdir()
    for number, text in enumerate(ANSWERS):
        shown(number).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(text)
    return folder


def pairmill(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(one) for one in arguments])


def test_pictures_that_a_model_knows_are_described_as_their_captions_say(model: Path, tmp_path: Path) -> None:
    pictures = known_pictures(tmp_path / "pictures")
    asked = open_asked([Questioned.model_validate({"captions": {"folder": str(pictures), "prompt": QUESTION}})])
    found = evaluate(asked, model, "cpu", tmp_path / "out")["captions"]
    assert found["ROUGE_L"] == 1.0
    assert found["questions"] == len(ANSWERS)
    said = json.loads((tmp_path / "out" / "captions.json").read_text())
    assert said == [{"image_id": number, "caption": text} for number, text in enumerate(ANSWERS)]


@pytest.mark.parametrize("name", FILES)
def test_predictions_of_a_model_score_as_the_file_of_them_does(
    model: Path, opened: Built, tmp_path: Path, name: str
) -> None:
    """Pictures by path, with COCO's prefix, as base64 and in Parquet; several of them or none in a question."""
    annotations, images = case(tmp_path, name)
    asked = of_benchmark(name, annotations, images)
    found = evaluate([asked], model, "cpu", tmp_path / "out")[name]
    assert found == score_predictions(name, annotations, tmp_path / "out" / f"{name}.json").record()
    one_by_one = tmp_path / "out" / "again.json"
    put_predictions(asked, opened, one_by_one, "another", batch_size=1)
    assert one_by_one.read_bytes() == (tmp_path / "out" / f"{name}.json").read_bytes()


def test_frames_of_a_video_are_shown_in_their_order(opened: Built, tmp_path: Path) -> None:
    annotations, frames = (
        [write(tmp_path / "test.parquet", CASES["videomme"].files["test.parquet"])],
        tmp_path / "abc.mp4",
    )
    frames.mkdir()
    for number in range(20):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(frames / f"{number:02d}.png")
    asked = of_benchmark("videomme", annotations, tmp_path)
    [video] = asked.shown.conversation(asked.questions[0]).pictures
    assert [int(frame[0, 0, 0]) for frame in video.read()] == [1, 3, 6, 8, 11, 13, 16, 18]
    put_predictions(asked, opened, tmp_path / "said.json", "this")
    assert len(json.loads((tmp_path / "said.json").read_text())) == 2


def test_what_was_answered_is_not_asked_again_and_what_was_cut_short_is(opened: Built, tmp_path: Path) -> None:
    annotations, images = case(tmp_path, "docvqa")
    asked, predictions = of_benchmark("docvqa", annotations, images), tmp_path / "said.json"
    put_predictions(asked, opened, predictions, "this")
    whole, kept = json.loads(predictions.read_text()), tmp_path / "said.answers.jsonl"
    head, first, second = kept.read_text().splitlines()
    kept.write_text("\n".join([head, json.dumps(json.loads(first) | {"text": "kept"}), second[:-5]]))
    put_predictions(asked, opened, predictions, "this")
    assert json.loads(predictions.read_text()) == [whole[0] | {"answer": "kept"}, whole[1]]
    put_predictions(asked, opened, predictions, "another model")
    assert json.loads(predictions.read_text()) == whole


def test_a_model_is_known_by_all_its_files(model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in model.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert digest_of(copy) == digest_of(model)
    (copy / "config.json").write_text("{}")
    assert digest_of(copy) != digest_of(model)


def test_a_training_evaluates_at_its_end_and_notes_it_beside_its_set(tmp_path: Path) -> None:
    data = write_set(tmp_path / "shapes", pairs(16), per_shard=8, holdout=1)
    for name in ("disc", "square"):
        (tmp_path / "classes" / name).mkdir(parents=True)
        picture(1).save(tmp_path / "classes" / name / "1.png")
    stage = {"train": ["connector"], "data": [{"set": str(data)}], "steps": 1, "batch_size": 4, "lr": 1e-3}
    asked: list[dict[str, Any]] = [
        {"captions": {"set": str(data), "name": "held_out"}}, {"zeroshot": {"folder": str(tmp_path / "classes")}},
    ]  # fmt: skip
    spec = spec_of("llava", stages=[stage], output=str(tmp_path / "run"), evaluate=asked, threads=1)
    told: list[str] = []
    metrics = train_generative(spec, tell=told.append).metrics
    assert told[1:] == ["evaluates held_out", "evaluates zeroshot"]
    assert metrics["held_out"]["questions"] == 8
    assert set(metrics["zeroshot"]) == {"top1", "mean_per_class_recall", "per_class"}
    rows = list(read_scores(data))
    assert {(row["evaluation"], row["step"]) for row in rows} == {("held_out", 1), ("zeroshot", 1)}
    again = pairmill("evaluate", tmp_path / "run", "--json")
    scores = {name: metrics[name] for name in ("held_out", "zeroshot")}
    assert json.loads(again.stdout) == {"model": str(tmp_path / "run" / "model"), "evaluations": scores}


def test_the_command_asks_a_model_and_leaves_its_predictions(model: Path, tmp_path: Path) -> None:
    annotations, images = case(tmp_path, "docvqa")
    command = ["evaluate", "--benchmark", "docvqa", "--annotations", annotations[0], "--images", images]
    done = pairmill(*command, "--model", model.parent, "--json")
    assert done.exit_code == 0, done.output
    predictions = model.parent / "evaluations" / "docvqa.json"
    alone = pairmill(*command, "--predictions", predictions, "--json")
    assert json.loads(done.stdout) == json.loads(alone.stdout)
    part = pairmill(*command, model, "--limit", 1, "--predictions", tmp_path / "part.json")
    assert part.stdout == "answered: 1\n"
    assert len(json.loads((tmp_path / "part.json").read_text())) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--benchmark", "docvqa", "--annotations", "{known}"], "picture documents/a.png is named by path; name its"),
        (["--benchmark", "docvqa", "--annotations", "{known}", "--images", "{root}"], "there is no .*documents/a.png"),
        (["--benchmark", "retrieval", "--annotations", "{known}"], "a model that answers in words cannot be asked"),
        (["--benchmark", "docvqa"], "--benchmark docvqa: name its files by --annotations"),
        (["--benchmark", "docvqa", "--annotations", "{known}", "--images", "{images}", "--predictions", "a.tsv"],
         "they are written as JSON; name a .json file"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_said_before_the_model_is_opened(
    tmp_path: Path, options: list[str], words: str
) -> None:
    [known], images = case(tmp_path, "docvqa")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").touch()
    places = {"known": known, "images": images, "root": tmp_path}
    refused = pairmill("evaluate", tmp_path / "model", *(option.format(**places) for option in options))
    assert refused.exit_code == 2
    assert re.search(words, refused.stderr), refused.stderr


def test_a_picture_that_cannot_be_read_stops_with_its_name(model: Path, opened: Built, tmp_path: Path) -> None:
    annotations, images = case(tmp_path, "docvqa")
    (images / "documents" / "a.png").write_bytes(b"no picture")
    with pytest.raises(RunError, match=r"docvqa: .*a\.png: "):
        put_predictions(of_benchmark("docvqa", annotations, images), opened, tmp_path / "said.json", "this")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({}, "an entry names one evaluation: benchmark, captions, zeroshot, command"),
        ({"benchmark": "docvqa"}, "benchmark and annotations go together"),
        ({"zeroshot": {"folder": "a", "templates": "a {}"}}, "templates belongs to contrastive models"),
        ({"captions": {"folder": "a"}, "name": "b"}, "carry their own name"),
    ],
)
def test_what_an_entry_of_evaluate_may_not_say(entry: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Questioned.model_validate(entry)


def test_of_a_part_of_a_video_its_own_frames_are_shown(tmp_path: Path) -> None:
    import cv2

    row = {"video": "v", "question": "What?", "candidates": ["a", "b"], "answer": "a", "start": 1.0, "end": 3.0}
    rows = [row, row | {"video": "v.avi"}]
    (tmp_path / "v").mkdir()
    for number in range(12):  # three a second
        Image.new("RGB", (32, 32), (number, 0, 0)).save(tmp_path / "v" / f"{number:02d}.png")
    written = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 5, (32, 32))
    for number in range(20):
        written.write(np.full((32, 32, 3), number * 12, np.uint8))
    written.release()
    asked = of_benchmark("mvbench", [write(tmp_path / "task.json", rows)], tmp_path)
    folder, file = (asked.shown.conversation(question).pictures[0].read() for question in asked.questions)
    assert [int(frame[0, 0, 0]) for frame in folder] == [3, 4, 5, 6, 7, 8]
    assert [round(int(frame[0, 0, 0]) / 12) for frame in file] == [5, 6, 8, 9, 10, 11, 13, 14]


def test_a_family_that_reads_no_text_alone_is_not_asked_without_a_picture(tmp_path: Path) -> None:
    asked = of_benchmark("scienceqa", *case(tmp_path, "scienceqa"))
    with pytest.raises(InputError, match="scienceqa: blip2 reads no text alone, and question 2 has no picture"):
        put_predictions(asked, built("blip2"), tmp_path / "said.json", "this")
