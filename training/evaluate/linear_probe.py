"""Linear probe: logistic regression on the vectors of the frozen picture tower (CLIP, section 3.2, appendix A.3).

Shapes: N pictures, K classes, D numbers per embedding. Fitted in float64 by L-BFGS from zero: the loss is convex, so
the result depends on data alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from schemas.errors import InputError
from schemas.training import LinearProbe
from training.evaluate.labelled import Labelled, number_classes, read_pictures
from training.evaluate.pictures import embed_pictures
from training.evaluate.zeroshot import Scores, classification, ranked

if TYPE_CHECKING:
    from training.model import Model

L2 = tuple(10.0**power for power in range(-8, 1))  # of the mean loss; tried from strong to weak
_ONE_IN = 5
_MOST_ITERATIONS = 1000  # as in CLIP, which takes scikit-learn's


@dataclass(frozen=True)
class Probe:
    """Pictures to fit on, and pictures to score on, of the same classes."""

    train: Labelled
    test: Labelled


def read_probe(asked: LinearProbe) -> Probe:
    """The pictures of both sides. Raises InputError where a label of the test was never trained on."""
    what = f"linear_probe {asked.name}"
    train, train_words = read_pictures(asked.train, f"{what}: train")
    test, test_words = read_pictures(asked.test, f"{what}: test")
    unknown = sorted(set(test_words) - set(train_words))
    if unknown:
        raise InputError(f"{what}: test: there is no label {unknown[0]!r} among those to fit on: {asked.train.place}")
    numbers, names = number_classes(train_words, None, what)
    by_word = dict(zip(train_words, numbers, strict=True))
    sides = Labelled(train, numbers, names), Labelled(test, tuple(by_word[word] for word in test_words), names)
    if len(names) < 2 or min(np.bincount(numbers)) < 2:
        raise InputError(f"{what}: train: two classes are needed, and two pictures of each")
    return Probe(*sides)


def probe_scores(model: "Model", probe: Probe) -> Scores:
    """Scores on the test side, and the `l2` that a fifth of the training side chose."""
    train_ND = embed_pictures(model, probe.train.files, "linear_probe: train").astype(np.float64)
    test_ND = embed_pictures(model, probe.test.files, "linear_probe: test").astype(np.float64)
    labels_N, classes = np.asarray(probe.train.labels), len(probe.train.class_names)
    l2 = best_l2(train_ND, labels_N, classes)
    weights_KD, bias_K = fit(train_ND, labels_N, classes, l2)
    ranked_NR = ranked(test_ND @ weights_KD.T + bias_K)
    found = classification(ranked_NR, np.asarray(probe.test.labels), probe.test.class_names)
    return Scores({**found.metrics, "l2": l2}, found.per_class)


def best_l2(image_ND: np.ndarray, labels_N: np.ndarray, classes: int, tried: Sequence[float] = L2) -> float:
    """The regularisation under which most of the pictures kept apart are right; of equal ones the strongest."""
    apart_N = kept_apart(labels_N)
    right: dict[float, int] = {}
    start = None
    for l2 in sorted(tried, reverse=True):  # each begins where the one before it ended, which is near
        weights_KD, bias_K = start = fit(image_ND[~apart_N], labels_N[~apart_N], classes, l2, start)
        predicted_N = (image_ND[apart_N] @ weights_KD.T + bias_K).argmax(1)
        right[l2] = int((predicted_N == labels_N[apart_N]).sum())
    return max(right, key=lambda l2: right[l2])


def kept_apart(labels_N: np.ndarray) -> np.ndarray:
    """Which pictures choose the regularisation: of each class the second, and from there on every fifth."""
    order_N = np.argsort(labels_N, kind="stable")
    first_N = np.searchsorted(labels_N[order_N], labels_N[order_N])
    apart_N = np.zeros(len(labels_N), bool)
    apart_N[order_N] = (np.arange(len(labels_N)) - first_N) % _ONE_IN == 1
    return apart_N


def fit(
    image_ND: np.ndarray,
    labels_N: np.ndarray,
    classes: int,
    l2: float,
    start: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Weights_KD and bias_K that minimise the mean cross-entropy plus l2/2 · |weights|²; the bias is free."""
    from scipy.optimize import minimize

    ones_ND1 = np.concatenate([image_ND, np.ones((len(image_ND), 1))], axis=1)
    rows_N = np.arange(len(image_ND))
    penalty_D1 = l2 * np.append(np.ones(image_ND.shape[1]), 0.0)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights_KD1 = flat.reshape(classes, -1)
        logits_NK = ones_ND1 @ weights_KD1.T
        logits_NK -= logits_NK.max(1, keepdims=True)
        right_N = logits_NK[rows_N, labels_N]
        chances_NK = np.exp(logits_NK, out=logits_NK)
        sums_N = chances_NK.sum(1)
        value = np.log(sums_N).sum() - right_N.sum()
        chances_NK /= sums_N[:, None]
        chances_NK[rows_N, labels_N] -= 1
        gradient_KD1 = chances_NK.T @ ones_ND1 / len(image_ND)
        penalised = value / len(image_ND) + 0.5 * (penalty_D1 * weights_KD1**2).sum()
        return float(penalised), (gradient_KD1 + penalty_D1 * weights_KD1).ravel()

    zero = np.zeros((classes, image_ND.shape[1])), np.zeros(classes)
    weights_KD, bias_K = zero if start is None else start
    first = np.column_stack([weights_KD, bias_K]).ravel()
    options = {"maxiter": _MOST_ITERATIONS, "gtol": 1e-6}
    found = minimize(loss, first, jac=True, method="L-BFGS-B", options=options).x.reshape(classes, -1)
    return found[:, :-1], found[:, -1]
