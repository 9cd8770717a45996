"""aesthetic_score: LAION's head folded into one vector, exact on the stored numbers."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curation.models.linear_head import read_linear_head
from curation.operator import Batch
from curation.operators.aesthetic_score import AestheticScore
from schemas.errors import InputError, RunError

WIDTHS = (24, 32, 16, 8, 4, 1)  # in LAION's: 768, 1024, 128, 64, 16, 1
PLACES = (0, 2, 4, 6, 7)  # of its linear layers in their Sequential; the others are dropouts


def laions(places: tuple[int, ...] = PLACES, widths: tuple[int, ...] = WIDTHS) -> dict:
    """Weights of a head built as LAION's, named as in its file."""
    import torch

    torch.manual_seed(0)
    layers = {place: torch.nn.Linear(*widths[i : i + 2]) for i, place in enumerate(places)}
    return {f"layers.{place}.{name}": v for place, one in layers.items() for name, v in one.state_dict().items()}


@pytest.fixture
def pth(tmp_path: Path) -> Path:
    import torch

    torch.save(laions(), tmp_path / "head.pth")
    return tmp_path / "head.pth"


def unit_vectors(count: int, width: int) -> np.ndarray:
    vectors_ND = np.random.default_rng(0).normal(size=(count, width))
    return (vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)).astype(np.float16)


def scored(path: Path, vectors_ND: np.ndarray):
    operator = AestheticScore(weights=str(path))
    operator.check()
    stored = pa.array([row.tobytes() for row in vectors_ND], pa.binary(2 * vectors_ND.shape[1]))
    keys = [str(row) for row in range(len(vectors_ND))]
    return operator.run(Batch(pa.table({"key": keys, "clip_image": stored})), operator.open())


def test_the_folded_head_gives_what_its_layers_give(pth: Path) -> None:
    import torch

    linear = [torch.nn.Linear(*WIDTHS[i : i + 2]) for i in range(5)]
    dropouts = [torch.nn.Dropout(p) for p in (0.2, 0.2, 0.1)]
    order = [linear[0], dropouts[0], linear[1], dropouts[1], linear[2], dropouts[2], linear[3], linear[4]]
    head = torch.nn.ModuleDict({"layers": torch.nn.Sequential(*order)}).eval()
    head.load_state_dict(laions())
    vectors_ND = unit_vectors(50, WIDTHS[0])
    with torch.no_grad():
        values_N = head["layers"].double()(torch.from_numpy(vectors_ND).double())[:, 0].numpy()
    found = scored(pth, vectors_ND)
    assert not found.failures
    assert np.allclose(found.values["aesthetic_score"], values_N, rtol=0, atol=1e-6)
    assert read_linear_head(str(pth)).width == WIDTHS[0]


def test_safetensors_and_pth_of_the_same_head_give_the_same_bits(pth: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(laions(), tmp_path / "head.safetensors")
    vectors_ND = unit_vectors(50, WIDTHS[0])
    first, second = (
        scored(path, vectors_ND).values["aesthetic_score"] for path in (pth, pth.with_suffix(".safetensors"))
    )
    assert first.tobytes() == second.tobytes()


def test_the_score_is_the_dot_product_of_the_stored_numbers(tmp_path: Path) -> None:
    import torch

    torch.save({"weight": torch.tensor([[3.0, -4.0]]), "bias": torch.tensor([5.0])}, tmp_path / "v1.pth")
    found = scored(tmp_path / "v1.pth", np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float16))
    exact = 5 + 3 * float(np.float16(0.6)) - 4 * float(np.float16(0.8))
    assert found.values["aesthetic_score"].tolist() == [8.0, 1.0, float(np.float32(exact))]


def test_vectors_of_another_width_are_refused(pth: Path) -> None:
    with pytest.raises(InputError, match=r"clip_image has 512 numbers, the head in .*head\.pth takes 24; take vectors"):
        scored(pth, unit_vectors(2, 512))


def test_a_vector_that_is_not_of_unit_length_has_no_score(pth: Path) -> None:
    vectors_ND = unit_vectors(3, WIDTHS[0])
    vectors_ND[1] *= 3
    found = scored(pth, vectors_ND)
    assert {row: failure.status for row, failure in found.failures.items()} == {1: "not_unit_length"}


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (laions((0, 3, 6, 9, 11)), "between layers 0 and 3 stands more than a dropout"),
        (laions((0, 2), (24, 8, 3)), "the head gives 3 numbers per row; a score is one"),
        ({k: v for k, v in laions().items() if "layers.2." not in k}, "between layers 0 and 4 stands more"),
        ({k: v for k, v in laions().items() if "layers.6." not in k}, "between layers 4 and 7 stands more"),
        ({"layers.0.bias": laions()["layers.0.bias"]}, "layer 0 has a bias and no weight"),
        (
            {"conv.weight": laions()["layers.0.weight"][None]},
            r"conv\.weight of shape \(1, 32, 24\) belongs to no linear",
        ),
        ({}, "the head gives 0 numbers per row"),
    ],
)
def test_what_is_no_linear_head_is_a_sentence(tmp_path: Path, weights: dict, words: str) -> None:
    import torch

    torch.save(weights, tmp_path / "odd.pth")
    with pytest.raises(RunError, match=words):
        AestheticScore(weights=str(tmp_path / "odd.pth")).open()


def test_layers_that_do_not_fit_each_other_are_a_sentence(tmp_path: Path) -> None:
    import torch

    torch.save(laions() | laions((2,), (7, 16)), tmp_path / "odd.pth")
    with pytest.raises(RunError, match="layer 2 takes 7 numbers, the one before gives 32"):
        AestheticScore(weights=str(tmp_path / "odd.pth")).open()


def test_nothing_in_a_file_of_weights_is_executed(tmp_path: Path) -> None:
    import torch

    torch.save({"weight": print}, tmp_path / "evil.pth")
    with pytest.raises(RunError, match=r"weights .*evil\.pth: cannot be read: UnpicklingError"):
        AestheticScore(weights=str(tmp_path / "evil.pth")).open()


@pytest.mark.parametrize(("name", "words"), [("none.pth", "there is no file"), ("head.txt", "is none of .safetensors")])
def test_a_file_that_is_none_is_refused_before_anything_runs(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "head.txt").write_text("")
    with pytest.raises(InputError, match=words):
        AestheticScore(weights=str(tmp_path / name)).check()


def test_the_digest_is_that_of_the_file_and_not_of_its_path(pth: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.pth"
    copy.write_bytes(pth.read_bytes())
    first, second = AestheticScore(weights=str(pth)), AestheticScore(weights=str(copy))
    assert first.weights_digest() == second.weights_digest()
    assert AestheticScore.result_parameters() == []


def test_checking_the_head_imports_no_torch(pth: Path) -> None:
    code = (
        "import sys; from curation.operators.aesthetic_score import AestheticScore\n"
        f"o = AestheticScore(weights={str(pth)!r}); o.check(); o.weights_digest()\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
