"""Contrastive losses: exact values, and chunks that change nothing."""

from collections.abc import Callable

import pytest
import torch

from training.losses import info_nce, pairwise_sigmoid


def unit(rows: int, width: int, seed: int) -> torch.Tensor:
    vectors = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vectors, dim=1).requires_grad_()


ONE, NONE = torch.tensor(1.0), torch.tensor(0.0)


@pytest.mark.parametrize(("rows", "expected"), [(2, 0.693147), (4, 1.386294), (128, 4.852030), (4096, 8.317766)])
def test_info_nce_is_the_logarithm_of_the_batch_where_nothing_is_known(rows: int, expected: float) -> None:
    same_BD = torch.ones(rows, 1)
    assert float(info_nce(same_BD, same_BD, ONE)) == pytest.approx(expected, abs=2e-5)


def test_info_nce_of_known_logits() -> None:
    assert float(info_nce(torch.eye(2), torch.eye(2), ONE)) == pytest.approx(0.313262, abs=1e-6)
    logits = torch.tensor([[2.0, 1.0], [0.0, 3.0]])
    assert float(info_nce(logits, torch.eye(2), ONE)) == pytest.approx(0.153926, abs=1e-6)


def test_pairwise_sigmoid_of_known_logits() -> None:
    assert float(pairwise_sigmoid(torch.eye(2), torch.eye(2), ONE, NONE)) == pytest.approx(1.006409, abs=1e-6)
    logits = torch.tensor([[2.0, 1.0], [0.0, 3.0]])
    assert float(pairwise_sigmoid(logits, torch.eye(2), ONE, NONE)) == pytest.approx(1.090962, abs=1e-6)
    ten, bias = torch.tensor(10.0), torch.tensor(-10.0)
    assert float(pairwise_sigmoid(torch.eye(3), torch.eye(3), ten, bias)) == pytest.approx(0.693238, abs=1e-6)


@pytest.mark.parametrize(("rows", "expected"), [(2, 10.000091), (128, 10.005811), (4096, 10.185954)])
def test_pairwise_sigmoid_begins_near_ten(rows: int, expected: float) -> None:
    nothing_BD = torch.zeros(rows, 1)
    value = pairwise_sigmoid(nothing_BD, nothing_BD, torch.tensor(10.0), torch.tensor(-10.0))
    assert float(value) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("chunk", [1, 3, 16, 32])
@pytest.mark.parametrize("loss", [info_nce, lambda i, t, s, c=None: pairwise_sigmoid(i, t, s, torch.tensor(-5.0), c)])
def test_chunks_give_the_same_loss_and_gradients(loss: Callable[..., torch.Tensor], chunk: int) -> None:
    found = []
    for rows in (None, chunk):
        given = [unit(16, 8, 1), unit(16, 8, 2), torch.tensor(14.0, requires_grad=True)]
        value = loss(*given, rows)
        found.append([value, *torch.autograd.grad(value, given)])
    for whole, chunked in zip(*found, strict=True):
        torch.testing.assert_close(chunked, whole, atol=1e-5, rtol=1e-5)


def test_logits_stay_in_float32_under_autocast() -> None:
    image_BD, text_BD, scale = unit(16, 8, 1), unit(16, 8, 2), torch.tensor(100.0)
    exact = info_nce(image_BD, text_BD, scale)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(info_nce(image_BD, text_BD, scale), exact)
