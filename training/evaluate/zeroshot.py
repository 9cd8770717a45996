"""Zero-shot classification: a picture belongs to the class whose sentences are nearest (CLIP, section 3.1).

Shapes: N pictures, K classes, P sentences per class, D numbers per embedding, C channels, H and W pixels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from schemas.errors import InputError
from schemas.picture_transform import square
from schemas.pixels import DecodeError, decode

if TYPE_CHECKING:
    from torch import Tensor

    from training.model import Model

Picture = np.ndarray | bytes | Path | str
_AT_ONCE = 256


def zeroshot(
    model_folder: Path | str,
    pictures: Sequence[Picture],
    labels: Sequence[int],
    class_names: Sequence[str],
    templates: Sequence[str] = ("a photo of a {}.",),
    *,
    device: str = "cpu",
) -> dict[str, float]:
    """`top1` and `mean_per_class_recall` of pictures: uint8 pixels_HWC, stored bytes, or files.

    `labels` are places in `class_names`. Classes without a picture do not count in the mean; ties go to the class that
    comes first. Raises InputError.
    """
    from training.model import load_model

    _require_labels(len(pictures), labels, len(class_names))
    model = load_model(Path(model_folder), device)
    return scores(predict(model, pictures, class_names, templates), np.asarray(labels))


def predict(
    model: "Model", pictures: Sequence[Picture], class_names: Sequence[str], templates: Sequence[str]
) -> np.ndarray:
    """The place in `class_names` of each picture's nearest class."""
    import torch

    model.network.eval()
    class_KD = torch.stack([class_vector(model, name, templates) for name in class_names])
    found = []
    for start in range(0, len(pictures), _AT_ONCE):
        squares = [square(_pixels(one), model.side_px) for one in pictures[start : start + _AT_ONCE]]
        with torch.inference_mode():
            image_ND = model.embed_pictures(torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2))
        found.append((image_ND @ class_KD.T).argmax(1).cpu().numpy())
    return np.concatenate(found)


def class_vector(model: "Model", name: str, templates: Sequence[str]) -> "Tensor":
    """The unit vector in the middle of a class's sentences."""
    import torch
    from torch.nn import functional

    with torch.inference_mode():
        tokens_PT = model.tokenize([template.replace("{}", name) for template in templates])
        text_PD = model.embed_captions(tokens_PT)
    return functional.normalize(text_PD.mean(0), dim=-1)


def scores(predicted_N: np.ndarray, labels_N: np.ndarray) -> dict[str, float]:
    """Share of pictures that are right, and the mean over classes of the share of each class's pictures."""
    right_N = predicted_N == labels_N
    recalls = [float(right_N[labels_N == label].mean()) for label in np.unique(labels_N)]
    return {"top1": float(right_N.mean()), "mean_per_class_recall": float(np.mean(recalls))}


def _require_labels(pictures: int, labels: Sequence[int], classes: int) -> None:
    if not pictures or pictures != len(labels) or min(labels) < 0 or max(labels) >= classes:
        raise InputError(
            f"zeroshot: {pictures:,} pictures have {len(labels):,} labels; each needs one from 0 to {classes - 1}"
        )


def _pixels(picture: Picture) -> np.ndarray:
    if isinstance(picture, np.ndarray):
        return picture
    try:
        return decode(picture if isinstance(picture, bytes) else Path(picture).read_bytes())
    except (OSError, DecodeError) as error:
        named = "a stored picture" if isinstance(picture, bytes) else f"picture {picture}"
        raise InputError(f"zeroshot: {named} cannot be read: {error}") from error
