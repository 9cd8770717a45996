"""Retrieval: which pictures a caption finds, and which captions a picture finds.

Annotations are COCO's captions, {"images": [{"id"}], "annotations": [{"id", "image_id", "caption"}]}. Predictions are
{"scores": [[...]]} or an .npy file, a row per caption and a number per picture in that order; or rankings,
{"text_to_image": {caption id: [image ids]}, "image_to_text": {image id: [caption ids]}}, best first. `--official`
changes nothing.

Shapes: N pictures, M captions.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from schemas.errors import InputError
from training.evaluate.annotation_files import misfit, only_file, read_json
from training.evaluate.answers import require_same
from training.evaluate.benchmark import Question
from training.evaluate.retrieval import AT, recalls, recalls_of_ranks
from training.evaluate.zeroshot import Scores


def score(annotations: Sequence[Path], predictions: Path, *, official: bool = False) -> Scores:
    """Recall at 1, 5 and 10, both ways. Raises InputError."""
    path = only_file(annotations, "COCO's captions")
    known = read_json(path)
    try:
        images = [str(image["id"]) for image in known["images"]]
        captions = {str(caption["id"]): str(caption["image_id"]) for caption in known["annotations"]}
    except (KeyError, TypeError) as error:
        raise InputError(f"annotations {path}: are not as COCO has captions ({error!r})") from error
    places = {image: place for place, image in enumerate(images)}
    without = sorted(set(images) - set(captions.values())) + sorted(set(captions.values()) - set(images))
    if without or not images:
        raise InputError(f"annotations {path}: image {without[:1] or 'none'} has no caption, or no entry")
    said: Any = None if predictions.suffix == ".npy" else _object(predictions)
    if said is None or "scores" in said:
        scores_MN = _matrix(predictions, said, (len(captions), len(images)))
        owners_M = np.array([places[image] for image in captions.values()])
        return recalls(lambda rows: scores_MN[rows], owners_M, len(images))
    of_image: dict[str, set[str]] = {image: set() for image in images}
    for caption, image in captions.items():
        of_image[image].add(caption)
    from_image = _first_hits(said, "image_to_text", of_image, predictions)
    from_text = _first_hits(
        said, "text_to_image", {caption: {image} for caption, image in captions.items()}, predictions
    )
    return recalls_of_ranks(from_image, from_text)


def questions(annotations: Sequence[Path]) -> list[Question]:
    """Refuse: words rank no pictures. Raises InputError."""
    raise InputError("evaluate: retrieval compares vectors; a model that answers in words cannot be asked")


def entry(question: Question, text: str) -> dict[str, Any]:
    """Refuse, as `questions` does. Raises InputError."""
    raise InputError("evaluate: retrieval compares vectors; an answer in words is no ranking")


def _first_hits(said: Any, way: str, right: Mapping[str, set[str]], predictions: Path) -> np.ndarray:
    """The rank of the first right answer to each question; beyond all that count where there is none."""
    rankings = said.get(way)
    if not isinstance(rankings, dict):
        raise InputError(f"predictions {predictions}: need `scores`, or `image_to_text` and `text_to_image`")
    require_same(predictions, right, rankings)
    return np.array([_first_hit([str(one) for one in rankings[key]], right[key]) for key in right])


def _first_hit(ranking: Sequence[str], right: set[str]) -> int:
    return next((rank for rank, one in enumerate(ranking) if one in right), max(AT))


def _matrix(path: Path, said: Any, shape: tuple[int, int]) -> np.ndarray:
    """scores_MN of a JSON object or an .npy file."""
    try:
        found = np.load(path, allow_pickle=False) if said is None else np.array(said["scores"], np.float64)
    except (OSError, ValueError) as error:
        raise InputError(f"predictions {path}: cannot be read as a matrix: {error}") from error
    if found.shape != shape:
        raise InputError(
            f"predictions {path}: have the shape {found.shape}; there are {shape[0]} captions and {shape[1]} pictures"
        )
    if not np.isfinite(found).all():
        raise InputError(f"predictions {path}: a score is not a finite number")
    return found


def _object(path: Path) -> dict[str, Any]:
    found = read_json(path, what="predictions")
    if not isinstance(found, dict):
        misfit(path, "an object", found, what="predictions")
    return found
