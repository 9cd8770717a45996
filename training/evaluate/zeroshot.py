"""Zero-shot classification: a picture belongs to the class whose sentences are nearest (CLIP, section 3.1).

Shapes: N pictures, K classes, P sentences per class, R places of a ranking, D numbers per embedding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from schemas.errors import InputError
from training.evaluate.pictures import Picture, embed_pictures, require_finite

if TYPE_CHECKING:
    from torch import Tensor

    from training.model import Model

MOST_RANKS = 5


@dataclass(frozen=True)
class Scores:
    """What an evaluation gives: metrics by name, and for classifications recall and pictures of each class.

    `groups` are metrics of parts of a benchmark, by the kind of part (subject, split, task) and its name.
    """

    metrics: Mapping[str, float]
    per_class: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    groups: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """The scores as JSON values; those of parts stand under `per_<kind>`."""
        parts = {"class": self.per_class, **self.groups}
        return dict(self.metrics) | {f"per_{kind}": dict(names) for kind, names in parts.items() if names}


def zeroshot(
    model_folder: Path | str,
    pictures: Sequence[Picture],
    labels: Sequence[int],
    class_names: Sequence[str],
    templates: Sequence[str] = ("a photo of a {}.",),
    *,
    device: str = "cpu",
) -> dict[str, float]:
    """`top1`, `mean_per_class_recall` and, of more than five classes, `top5` of pictures.

    `labels` are places in `class_names`. Classes without a picture do not count in the mean; ties go to the class that
    comes first. Raises InputError.
    """
    from training.model import load_model

    model = load_model(Path(model_folder), device)
    return dict(zeroshot_scores(model, pictures, labels, class_names, templates).metrics)


def zeroshot_scores(
    model: "Model",
    pictures: Sequence[Picture],
    labels: Sequence[int],
    class_names: Sequence[str],
    templates: Sequence[str],
) -> Scores:
    """As `zeroshot`, of a model in memory, and with the recall of each class."""
    import torch

    _require_labels(len(pictures), labels, len(class_names))
    model.network.eval()
    class_KD = torch.stack([class_vector(model, name, templates) for name in class_names]).cpu().numpy()
    require_finite(class_KD, "classes")
    image_ND = embed_pictures(model, pictures, "zeroshot")
    return classification(ranked(image_ND @ class_KD.T), np.asarray(labels), class_names)


def class_vector(model: "Model", name: str, templates: Sequence[str]) -> "Tensor":
    """The unit vector in the middle of a class's sentences."""
    import torch
    from torch.nn import functional

    with torch.inference_mode():
        tokens_PT = model.tokenize([template.replace("{}", name) for template in templates])
        text_PD = model.embed_captions(tokens_PT)
    return functional.normalize(text_PD.mean(0), dim=-1)


def ranked(scores_NK: np.ndarray) -> np.ndarray:
    """The best classes of each picture as ranked_NR, best first; of equal ones the first comes first."""
    return np.argsort(-scores_NK, axis=1, kind="stable")[:, :MOST_RANKS]


def classification(ranked_NR: np.ndarray, labels_N: np.ndarray, class_names: Sequence[str]) -> Scores:
    """Scores of rankings; top-5 is given where there are rankings so long and more classes than that."""
    metrics = scores(ranked_NR[:, 0], labels_N)
    if ranked_NR.shape[1] >= MOST_RANKS < len(class_names):
        metrics["top5"] = float((ranked_NR[:, :MOST_RANKS] == labels_N[:, None]).any(1).mean())
    right_N = ranked_NR[:, 0] == labels_N
    per_class = {
        class_names[label]: {"recall": float(right_N[labels_N == label].mean()), "pictures": int(count)}
        for label, count in zip(*np.unique(labels_N, return_counts=True), strict=True)
    }
    return Scores(metrics, per_class)


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
