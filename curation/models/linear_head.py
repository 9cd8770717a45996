"""A head of linear layers with nothing between them but dropout, folded into one vector and one bias.

LAION's aesthetic predictors are such heads: `sac+logos+ava1-l14-linearMSE.pth` has five layers, the first version one.
Shapes: D numbers per embedding, N rows, O and I outputs and inputs of a layer.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from schemas.errors import InputError, RunError

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
_NAME = re.compile(r"(?:.*?(\d+)\.)?(weight|bias)\Z")
_MOST_APART = 2  # places in a Sequential from one linear layer to the next: between them stands a dropout at most


@dataclass(frozen=True)
class LinearHead:
    """`value = vector_D · x_D + bias`, in float64."""

    vector_D: np.ndarray
    bias: float

    @property
    def width(self) -> int:
        """Numbers per embedding."""
        return len(self.vector_D)

    def values(self, x_ND: np.ndarray) -> np.ndarray:
        """float64 `values_N`; each row's sum is its own, so that no row depends on those beside it."""
        values_N: np.ndarray = (x_ND.astype(np.float64) * self.vector_D).sum(axis=1) + self.bias
        return values_N


def require_head(path: str) -> None:
    """Raise InputError where there is no file of a kind that holds weights."""
    if not Path(path).is_file():
        raise InputError(f"weights: there is no file {path}; give the path of a head's weights ({', '.join(SUFFIXES)})")
    if Path(path).suffix not in SUFFIXES:
        raise InputError(f"weights: {path} is none of {', '.join(SUFFIXES)}")


def read_linear_head(path: str) -> LinearHead:
    """The head in a file of weights; nothing in the file is executed. Raises RunError."""
    try:
        weights = _tensors(Path(path))
    except Exception as error:  # torch and safetensors raise nearly everything for a damaged file
        raise RunError(f"weights {path}: cannot be read: {type(error).__name__}: {error}") from error
    return _folded(path, weights)


def _tensors(path: Path) -> Mapping[str, np.ndarray]:
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return dict(load_file(path))
    import torch

    found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return {name: tensor.double().numpy() for name, tensor in found.items()}


def _folded(path: str, weights: Mapping[str, np.ndarray]) -> LinearHead:
    layers = _layers(path, weights)
    places = sorted(layers)
    for before, after in pairwise(places):
        if after - before > _MOST_APART:
            raise RunError(
                f"weights {path}: between layers {before} and {after} stands more than a dropout; a head with an "
                "activation is not linear and cannot be folded"
            )
    matrix_OD, bias_O = None, np.zeros(0)
    for place in places:
        weight_OI, own_O = layers[place]
        if matrix_OD is not None and weight_OI.shape[1] != len(matrix_OD):
            raise RunError(
                f"weights {path}: layer {place} takes {weight_OI.shape[1]} numbers, the one before gives "
                f"{len(matrix_OD)}"
            )
        bias_O = own_O if matrix_OD is None else weight_OI @ bias_O + own_O
        matrix_OD = weight_OI if matrix_OD is None else weight_OI @ matrix_OD
    if matrix_OD is None or len(matrix_OD) != 1:
        given = 0 if matrix_OD is None else len(matrix_OD)
        raise RunError(f"weights {path}: the head gives {given} numbers per row; a score is one")
    return LinearHead(matrix_OD[0], float(bias_O[0]))


def _layers(path: str, weights: Mapping[str, np.ndarray]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """(weight_OI, bias_O) by place in the head, float64."""
    found: dict[int, dict[str, np.ndarray]] = {}
    for name, value in weights.items():
        match = _NAME.match(name)
        wanted = {"weight": 2, "bias": 1}.get(match[2] if match else "")
        if match is None or value.ndim != wanted:
            raise RunError(f"weights {path}: {name} of shape {value.shape} belongs to no linear layer")
        found.setdefault(int(match[1] or 0), {})[match[2]] = value.astype(np.float64)
    without = [place for place, layer in found.items() if "weight" not in layer]
    if without:
        raise RunError(f"weights {path}: layer {without[0]} has a bias and no weight")
    return {
        place: (layer["weight"], layer.get("bias", np.zeros(len(layer["weight"])))) for place, layer in found.items()
    }
