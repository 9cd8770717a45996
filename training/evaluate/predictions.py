"""Scores of predictions that somebody else made, without a model; `pairmill evaluate --help` tells the formats.

Shapes: N pictures, M captions, R places of a ranking.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from schemas.errors import InputError
from training.evaluate.retrieval import AT, recalls, recalls_of_ranks
from training.evaluate.zeroshot import MOST_RANKS, Scores, classification


def score_predictions(benchmark: str, annotations: Path, predictions: Path) -> Scores:
    """Scores of a predictions file. Raises InputError where it does not fit the annotations."""
    scorers = {"zeroshot": _zeroshot, "retrieval": _retrieval}
    if benchmark not in scorers:
        raise InputError(f"evaluate: there is no benchmark {benchmark!r} yet; there are: {', '.join(sorted(scorers))}")
    return scorers[benchmark](annotations, predictions)


def _zeroshot(annotations: Path, predictions: Path) -> Scores:
    known, said = _object(annotations), _object(predictions)
    classes, labels = known.get("classes"), known.get("labels")
    if not isinstance(classes, list) or not isinstance(labels, dict) or not labels:
        raise InputError(f"annotations {annotations}: need `classes`, a list, and `labels`, an object of id and class")
    places = {str(name): place for place, name in enumerate(classes)}
    strange = [f"{key}: {label}" for key, label in labels.items() if str(label) not in places]
    if strange:
        raise InputError(f"annotations {annotations}: the label of {strange[0]} is none of `classes`")
    _require_same(labels, said, predictions)
    ranked = [said[key] if isinstance(said[key], list) else [said[key]] for key in labels]
    length = min(MOST_RANKS, *(len(names) for names in ranked))
    if not length:
        raise InputError(f"predictions {predictions}: an empty list predicts nothing")
    ranked_NR = np.array([[places.get(str(name), -1) for name in names[:length]] for names in ranked])
    return classification(ranked_NR, np.array([places[str(label)] for label in labels.values()]), list(places))


def _retrieval(annotations: Path, predictions: Path) -> Scores:
    known = _object(annotations)
    try:
        images = [str(image["id"]) for image in known["images"]]
        captions = {str(caption["id"]): str(caption["image_id"]) for caption in known["annotations"]}
    except (KeyError, TypeError) as error:
        raise InputError(f"annotations {annotations}: are not as COCO has captions ({error!r})") from error
    places = {image: place for place, image in enumerate(images)}
    without = sorted(set(images) - set(captions.values())) + sorted(set(captions.values()) - set(images))
    if without or not images:
        raise InputError(f"annotations {annotations}: image {without[:1] or 'none'} has no caption, or no entry")
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


def _first_hits(said: Any, way: str, right: Mapping[str, set[str]], predictions: Path) -> np.ndarray:
    """The rank of the first right answer to each question; beyond all that count where there is none."""
    rankings = said.get(way)
    if not isinstance(rankings, dict):
        raise InputError(f"predictions {predictions}: need `scores`, or `image_to_text` and `text_to_image`")
    _require_same(right, rankings, predictions)
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


def _require_same(wanted: Mapping[str, Any], said: Mapping[str, Any], predictions: Path) -> None:
    missing, strange = [key for key in wanted if key not in said], [key for key in said if key not in wanted]
    if missing or strange:
        which = f"no prediction of {missing[0]!r}" if missing else f"a prediction of {strange[0]!r}, which is not asked"
        raise InputError(
            f"predictions {predictions}: have {which} ({len(missing):,} of {len(wanted):,} missing, "
            f"{len(strange):,} not asked for)"
        )


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: must be a JSON object; it is a {type(found).__name__}")
    return found
