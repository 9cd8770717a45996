"""What the tests of benchmarks share: small annotations in every official format, and right answers to them."""

import base64
import json
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from evaluation_cases import png

from training.evaluate.benchmark import score_predictions

PEOPLE = [{"answer": "dog", "answer_id": n, "answer_confidence": "yes"} for n in range(10)]
COCO = {
    "images": [{"id": 1, "file_name": "1.jpg"}, {"id": 2, "file_name": "2.jpg"}],
    "annotations": [
        {"id": 1, "image_id": 1, "caption": "A red circle on a white background."},
        {"id": 2, "image_id": 2, "caption": "A blue square on a black table."},
    ],
}


def write(path: Path, content: Any) -> Path:
    """Write JSON, lines of JSON, a TSV, Parquet or a pickle, by the name's ending."""
    if path.suffix == ".json":
        path.write_text(json.dumps(content))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
    elif path.suffix == ".tsv":
        rows = [list(content[0]), *(list(row.values()) for row in content)]
        path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(content), path)
    elif path.suffix == ".p":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        path.write_text(content)
    return path


def scores(
    folder: Path, benchmark: str, annotations: Any, predictions: Any, *, official: bool = False, **named: Any
) -> dict:
    """The record of scores; annotations are written as JSON, or as the files that `named` maps from names."""
    folder.mkdir(exist_ok=True)
    known = folder / "annotations"
    known.mkdir(exist_ok=True)
    files = annotations if isinstance(annotations, dict) and named.get("files") else {"annotations.json": annotations}
    for name, content in files.items():
        write(known / name, content)
    said = write(folder / named.get("said", "predictions.json"), predictions)
    return score_predictions(benchmark, [known], said, official=official).record()


def choice_row(index: int, answer: str, options: Sequence[str] = ("w", "x", "y", "z")) -> dict[str, Any]:
    """A row of MMBench's table."""
    picture = base64.b64encode(png("red")).decode() if index < 1_000_000 else str(index % 1_000_000)
    return {
        "index": index,
        "question": f"question {index}?",
        "hint": "",
        **dict(zip("ABCD", options, strict=False)),
        "answer": answer,
        "category": "kind",
        "l2-category": "kinds",
        "image": picture,
        "split": "dev",
    }


def refcoco() -> dict[str, Any]:
    """RefCOCO's two files: five references of a sentence each in testA, and one in train."""
    sentences = {n: [{"sent_id": n, "sent": f"thing {n}", "raw": f"thing {n}", "tokens": ["thing"]}] for n in range(6)}
    refs = [
        {
            "ref_id": n,
            "ann_id": n,
            "image_id": 7,
            "split": "train" if n == 5 else "testA",
            "category_id": 1,
            "file_name": "x.jpg",
            "sent_ids": [n],
            "sentences": sentences[n],
        }
        for n in range(6)
    ]
    sizes = {
        0: (0, 0, 10, 10),
        1: (0, 0, 10, 10),
        2: (0, 0, 10, 10),
        3: (0, 0, 10, 10),
        4: (0, 0, 3, 3),
        5: (0, 0, 1, 1),
    }
    boxes = [{"id": n, "image_id": 7, "bbox": list(box)} for n, box in sizes.items()]
    images = [{"id": 7, "width": 100, "height": 50, "file_name": "COCO_train2014_000000000007.jpg"}]
    return {"refs(unc).p": refs, "instances.json": {"images": images, "annotations": boxes}}


@dataclass(frozen=True)
class Case:
    """A benchmark's files by name, and what a model that is right says to a question's id."""

    files: dict[str, Any]
    right: Callable[[str], str]
    metric: str = "accuracy"


_PICTURE = {"bytes": png("red"), "path": "1.png"}
CASES = {
    "vqav2": Case(
        {
            "annotations.json": {
                "annotations": [
                    {
                        "question_id": n,
                        "image_id": 9,
                        "question_type": "what",
                        "answer_type": "other",
                        "answers": PEOPLE,
                    }
                    for n in (1, 2)
                ]
            },
            "questions.json": {"questions": [{"question_id": n, "image_id": 9, "question": "What?"} for n in (1, 2)]},
        },
        lambda _: " dog\n",
    ),
    "docvqa": Case(
        {
            "val.json": {
                "data": [
                    {
                        "questionId": n,
                        "question": "Sum?",
                        "image": "documents/a.png",
                        "answers": ["$1,200"],
                        "question_types": ["table/list"],
                    }
                    for n in (1, 2)
                ]
            }
        },
        lambda _: "$1,200",
        "anls",
    ),
    "infographicvqa": Case(
        {
            "val.json": {
                "data": [
                    {"questionId": n, "question": "Sum?", "image_local_name": "1.jpeg", "answers": ["5"]}
                    for n in (1, 2)
                ]
            }
        },
        lambda _: "5",
        "anls",
    ),
    "chartqa": Case(
        {
            f"test_{half}.json": [{"imgname": "1.png", "query": f"{half}?", "label": "5"}]
            for half in ("human", "augmented")
        },
        lambda _: "5.1",
        "relaxed_accuracy",
    ),
    "coco_captions": Case(
        {"captions_val2014.json": COCO},
        lambda key: str(COCO["annotations"][int(key) - 1]["caption"]),  # type: ignore[index]
        "CIDEr",
    ),
    "refcoco": Case(refcoco(), lambda key: "[0, 0, 3, 3]" if key == "4" else "It is at [0.0, 0.0, 0.1, 0.2]."),
    "mmbench": Case(
        {"dev.tsv": [choice_row(1, "A"), choice_row(1_000_001, "B")]},
        lambda key: "A" if key == "1" else "The answer is B.",
        "circular_accuracy",
    ),
    "mmmu": Case(
        {
            "Art.parquet": [
                {
                    "id": "validation_Art_1",
                    "question": "Who made <image 1>?",
                    "options": "['<image 2>', 'b']",
                    "answer": "B",
                    "question_type": "multiple-choice",
                    "image_1": _PICTURE,
                    "image_2": _PICTURE,
                },
                {
                    "id": "validation_Art_2",
                    "question": "How many <image 1>?",
                    "options": "[]",
                    "answer": "24",
                    "question_type": "open",
                    "image_1": _PICTURE,
                    "image_2": None,
                },
            ]
        },
        lambda key: "B" if key.endswith("1") else "There are 24.",
    ),
    "mathvista": Case(
        {
            "testmini.parquet": [
                {
                    "pid": "1",
                    "question": "How long?",
                    "image": "images/1.jpg",
                    "decoded_image": _PICTURE,
                    "choices": ["3 cm", "5 cm"],
                    "unit": None,
                    "precision": None,
                    "answer": "5 cm",
                    "query": "Hint: …",
                    "question_type": "multi_choice",
                    "answer_type": "text",
                    "metadata": {"skills": ["geometry"], "task": "t"},
                },
                {
                    "pid": "2",
                    "question": "How long?",
                    "image": "images/1.jpg",
                    "decoded_image": _PICTURE,
                    "choices": None,
                    "unit": "cm",
                    "precision": 1.0,
                    "answer": "2.5",
                    "query": None,
                    "question_type": "free_form",
                    "answer_type": "float",
                    "metadata": {"skills": ["geometry"], "task": "t"},
                },
            ]
        },
        lambda key: "(B)" if key == "1" else "The answer is 2.5 cm.",
    ),
    "scienceqa": Case(
        {
            "problems.json": {
                "1": {
                    "question": "Which?",
                    "choices": ["a", "b"],
                    "answer": 1,
                    "hint": "",
                    "image": "image.png",
                    "grade": "grade2",
                    "subject": "natural science",
                    "split": "test",
                },
                "2": {
                    "question": "Which?",
                    "choices": ["a", "b"],
                    "answer": 1,
                    "hint": "Look.",
                    "image": None,
                    "grade": "grade9",
                    "subject": "social science",
                    "split": "test",
                },
                "3": {"question": "Which?", "choices": ["a", "b"], "answer": 1, "split": "train"},
            },
            "pid_splits.json": {"train": ["3"], "test": ["1", "2"]},
        },
        lambda _: "B",
    ),
    "ai2d": Case(
        {"test.parquet": [{"question": "Which?", "options": ["a", "b"], "answer": "1", "image": _PICTURE}] * 2},
        lambda _: "B. b",
    ),
    "videomme": Case(
        {
            "test.parquet": [
                {
                    "video_id": "001",
                    "videoID": "abc",
                    "duration": "short",
                    "domain": "d",
                    "sub_category": "s",
                    "question_id": f"001-{n}",
                    "task_type": "t",
                    "question": "What?",
                    "options": ["A. a", "B. b", "C. c", "D. d"],
                    "answer": "C",
                }
                for n in (1, 2)
            ]
        },
        lambda _: "C",
    ),
    "mvbench": Case(
        {
            f"{task}.json": [
                {"video": "v.mp4", "question": "What?", "candidates": ["walking", "running"], "answer": "running"}
            ]
            for task in ("action_sequence", "egocentric_navigation")
        },
        lambda _: "(B) running",
    ),
    "zeroshot": Case(
        {"labels.json": {"classes": ["cat", "dog"], "labels": {"1.jpg": "cat", "2.jpg": "dog"}}},
        lambda key: "A cat." if key == "1.jpg" else "dog",
        "top1",
    ),
}
