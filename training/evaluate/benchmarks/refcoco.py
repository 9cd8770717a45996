"""RefCOCO, RefCOCO+ and RefCOCOg: the box of what a sentence describes (Yu et al. 2016), right where IoU ≥ 0.5.

Annotations are `refs(unc).p` (or google, umd) and `instances.json`, which is taken from the same folder if it is not
named. Results have an entry per sentence: [{"sent_id", "bbox": [left, top, width, height]}] in pixels, or
[{"sent_id", "answer": text}] with a box in a model's words, as `measures/boxes.py` reads them. A split that has one
prediction needs all of its; one that has none is left out, and so is `train`, as papers report splits apart.

`--official` changes nothing; a box without area is wrong, where some scripts divide by nothing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NotRequired

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from training.evaluate.annotation_files import Text, checked, files_of, misfit, read_json, unique
from training.evaluate.answers import read_answers, require_same
from training.evaluate.benchmark import Question, id_of
from training.evaluate.measures.boxes import Box, box_in, from_xywh, iou, xywh_in
from training.evaluate.plain_pickle import read_pickle
from training.evaluate.tally import Judged, tally
from training.evaluate.zeroshot import Scores

_PROMPT = "Please provide the bounding box coordinate of the region this sentence describes: {}"
_RIGHT = 0.5
_EXPECTED = "a list of references with ref_id, ann_id, image_id, split and sentences"


class _Sentence(TypedDict):
    sent_id: Text
    sent: str


class _Ref(TypedDict):
    ref_id: int
    ann_id: int
    image_id: int
    split: str
    sentences: list[_Sentence]


class _Image(TypedDict):
    id: int
    width: float
    height: float
    file_name: NotRequired[str]


class _Annotation(TypedDict):
    id: int
    bbox: tuple[float, float, float, float]


class _Instances(TypedDict):
    images: list[_Image]
    annotations: list[_Annotation]


class _Row(TypedDict):
    """A sentence: what is asked of which picture, whose size is in pixels, and the right box."""

    split: str
    sent: str
    image: _Image
    box: Box


_REFS, _INSTANCES = TypeAdapter(list[_Ref]), TypeAdapter(_Instances)


def score(annotations: Sequence[Path], predictions: Path, *, official: bool = False) -> Scores:
    """The share of sentences whose box is right, and by split. Raises InputError."""
    rows = _read(annotations)
    said = read_answers(predictions, ("sent_id",), ("bbox",))
    begun = {rows[key]["split"] for key in said if key in rows}
    asked = [key for key, row in rows.items() if row["split"] in (begun or {row["split"]})]
    require_same(predictions, asked, said)
    return tally([_judged(rows[key], said[key]) for key in asked], "accuracy")


def questions(annotations: Sequence[Path]) -> list[Question]:
    """A question per sentence of the splits for testing; the picture is COCO's, by its file's name."""
    return [
        Question(
            key,
            (Path(row["image"].get("file_name", str(row["image"]["id"]))),),
            _PROMPT.format(row["sent"]),
            length="box",
        )
        for key, row in _read(annotations).items()
        if row["split"] != "train"
    ]


def entry(question: Question, text: str) -> dict[str, Any]:
    """An entry with a model's words, of which scoring takes the box."""
    return {"sent_id": id_of(question), "answer": text.strip()}


def _judged(row: _Row, answer: Any) -> Judged:
    box = box_in(answer, row["image"]["width"], row["image"]["height"]) if isinstance(answer, str) else xywh_in(answer)
    right = box is not None and iou(box, row["box"]) >= _RIGHT
    return Judged(float(right), {"split": row["split"]}, box is not None)


def _read(annotations: Sequence[Path]) -> dict[str, _Row]:
    """A row per sentence by its id."""
    files = files_of(annotations)
    pickles = [path for path in files if path.suffix == ".p"]
    others = [path for path in files if path.suffix == ".json"] or [
        path.with_name("instances.json") for path in pickles
    ]
    if len(pickles) != 1 or len(others) != 1:
        misfit(files[0], "refs(…).p and instances.json", [path.name for path in files])
    refs = checked(pickles[0], read_pickle(pickles[0]), _REFS, _EXPECTED)
    instances = checked(files_of(others)[0], read_json(others[0]), _INSTANCES, 'COCO\'s {"images", "annotations"}')
    boxes = {row["id"]: from_xywh(*row["bbox"]) for row in instances["annotations"]}
    images = {row["id"]: row for row in instances["images"]}
    lost = [str(ref["ref_id"]) for ref in refs if ref["ann_id"] not in boxes or ref["image_id"] not in images]
    if lost or not refs:
        misfit(others[0], f"the picture and box of every reference in {pickles[0].name}", lost)
    unique(pickles[0], [sentence["sent_id"] for ref in refs for sentence in ref["sentences"]])
    return {
        sentence["sent_id"]: {
            "split": ref["split"],
            "sent": sentence["sent"],
            "image": images[ref["image_id"]],
            "box": boxes[ref["ann_id"]],
        }
        for ref in refs
        for sentence in ref["sentences"]
    }
