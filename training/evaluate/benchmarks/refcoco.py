"""RefCOCO, RefCOCO+ and RefCOCOg: the box of what a sentence describes (Yu et al. 2016), right where IoU ≥ 0.5.

Annotations are `refs(unc).p` (or google, umd) and `instances.json`, which is taken from the same folder if it is not
named. Results have an entry per sentence: [{"sent_id", "bbox": [left, top, width, height]}] in pixels, or
[{"sent_id", "answer": text}] with a box in a model's words, as `measures/boxes.py` reads them. A split that has one
prediction needs all of its; one that has none is left out, and so is `train`, as papers report splits apart.

`--official` changes nothing; a box without area is wrong, where some scripts divide by nothing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.evaluate.annotation_files import Row, files_of, misfit, need, read_json, unique
from training.evaluate.answers import read_answers, require_same
from training.evaluate.benchmark import Question, id_of
from training.evaluate.measures.boxes import Box, box_in, from_xywh, iou, xywh_in
from training.evaluate.plain_pickle import read_pickle
from training.evaluate.tally import Judged, tally
from training.evaluate.zeroshot import Scores

_PROMPT = "Please provide the bounding box coordinate of the region this sentence describes: {}"
_RIGHT = 0.5
_REF = ("ref_id", "ann_id", "image_id", "split", "sentences")


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
        Question(key, (Path(row["file_name"]),), _PROMPT.format(row["sent"]), length="box")
        for key, row in _read(annotations).items()
        if row["split"] != "train"
    ]


def entry(question: Question, text: str) -> dict[str, Any]:
    """An entry with a model's words, of which scoring takes the box."""
    return {"sent_id": id_of(question), "answer": text.strip()}


def _judged(row: Row, answer: Any) -> Judged:
    box = box_in(answer, row["width"], row["height"]) if isinstance(answer, str) else xywh_in(answer)
    right = box is not None and iou(box, row["box"]) >= _RIGHT
    return Judged(float(right), {"split": row["split"]}, box is not None)


def _read(annotations: Sequence[Path]) -> dict[str, Row]:
    """A row per sentence by its id: split, words, file name, size in pixels and the right box."""
    files = files_of(annotations)
    pickles = [path for path in files if path.suffix == ".p"]
    others = [path for path in files if path.suffix == ".json"] or [
        path.with_name("instances.json") for path in pickles
    ]
    if len(pickles) != 1 or len(others) != 1:
        misfit(files[0], "refs(…).p and instances.json", [path.name for path in files])
    refs, instances = read_pickle(pickles[0]), read_json(files_of(others)[0])
    if not isinstance(refs, list) or not all(isinstance(ref, dict) for ref in refs):
        misfit(pickles[0], f"a list of objects with {', '.join(_REF)}", refs)
    need(pickles[0], refs, _REF)
    if not isinstance(instances, dict) or not {"images", "annotations"} <= instances.keys():
        misfit(others[0], 'COCO\'s {"images", "annotations"}', instances)
    boxes = {row["id"]: from_xywh(*row["bbox"]) for row in instances["annotations"]}
    images = {row["id"]: row for row in instances["images"]}
    unique(pickles[0], [str(sentence["sent_id"]) for ref in refs for sentence in ref["sentences"]])
    return {
        str(sentence["sent_id"]): _row(others[0], ref, sentence, boxes, images)
        for ref in refs
        for sentence in ref["sentences"]
    }


def _row(path: Path, ref: Row, sentence: Row, boxes: dict[int, Box], images: dict[int, Row]) -> Row:
    if ref["ann_id"] not in boxes or ref["image_id"] not in images:
        misfit(path, f"annotation {ref['ann_id']} and image {ref['image_id']} of reference {ref['ref_id']}", None)
    image = images[ref["image_id"]]
    return {
        "split": str(ref["split"]),
        "sent": str(sentence["sent"]),
        "file_name": str(image.get("file_name", ref["image_id"])),
        "width": float(image["width"]),
        "height": float(image["height"]),
        "box": boxes[ref["ann_id"]],
    }
