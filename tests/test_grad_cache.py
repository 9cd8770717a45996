"""GradCache: micro-batches give the loss and the gradients of the whole batch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import MODEL, VIT, batch_of, learner_of, spec_of

from training.grad_cache import fill_gradients

Found = tuple[float, dict[str, torch.Tensor]]


def gradients(tmp_path: Path, **changes: Any) -> Found:
    learner, _, model = learner_of(spec_of(tmp_path, tmp_path, **{"model": VIT} | changes))
    loss = float(learner.gradients(batch_of(model, 12), 0))
    return loss, {name: p.grad for name, p in model.network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("loss", ["clip", "siglip"])
@pytest.mark.parametrize("micro_batch", [1, 5, 6])
def test_micro_batches_equal_the_whole_batch(loss: str, micro_batch: int, tmp_path: Path) -> None:
    whole = gradients(tmp_path, loss=loss)
    cached = gradients(tmp_path, loss=loss, micro_batch=micro_batch, loss_chunk=4)
    assert cached[0] == pytest.approx(whole[0], abs=1e-6)
    assert cached[1].keys() == whole[1].keys()
    for name, gradient in whole[1].items():
        torch.testing.assert_close(cached[1][name], gradient, atol=1e-5, rtol=1e-5, msg=name)


def test_the_loss_of_part_of_a_batch_is_another(tmp_path: Path) -> None:
    """So the test above cannot pass by accumulating plain losses."""
    learner, _, model = learner_of(spec_of(tmp_path, tmp_path, model=VIT))
    batch = batch_of(model, 12)
    parts = [slice(0, 6), slice(6, 12)]
    for part in parts:
        pixels_bCHW, tokens_bT = torch.from_numpy(batch.pixels_BCHW[part]), torch.from_numpy(batch.tokens_BT[part])
        (fill_gradients(learner._towers, pixels_bCHW, tokens_bT, learner._loss_of) / 2).item()
    accumulated = model.network.text_projection.grad / 2
    whole = gradients(tmp_path)[1]["text_projection"]
    assert (accumulated - whole).abs().max() > 1e-3


class Dropping(torch.nn.Module):
    """A stand-in for towers that drop at random, and note what they made."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.eye(8))
        self.made: list[torch.Tensor] = []

    def forward(self, pixels_bD: torch.Tensor, tokens_bD: torch.Tensor) -> tuple[Any, ...]:
        image_bD = torch.nn.functional.dropout(pixels_bD @ self.weight, 0.5)
        self.made.append(image_bD.detach())
        return image_bD, tokens_bD @ self.weight, self.weight.new_tensor(1.0), None


def test_what_is_dropped_is_the_same_both_times_and_the_random_numbers_go_on() -> None:
    towers, draw = Dropping(), torch.Generator().manual_seed(0)
    given = torch.randn(6, 8, generator=draw), torch.randn(6, 8, generator=draw)
    torch.manual_seed(1)
    fill_gradients(towers, *given, lambda image_bD, text_bD, scale, _: scale * (image_bD * text_bD).sum(), 2)
    assert all(torch.equal(first, second) for first, second in zip(towers.made[:3], towers.made[3:], strict=True))
    assert not torch.equal(towers.made[0] == 0, towers.made[1] == 0)
    after = torch.rand(1)
    torch.manual_seed(1)
    for _ in range(3):
        torch.nn.functional.dropout(torch.ones(2, 8), 0.5)
    assert torch.equal(torch.rand(1), after)


def test_a_batch_norm_counts_each_picture_once(tmp_path: Path) -> None:
    learner, _, model = learner_of(spec_of(tmp_path, tmp_path, model=MODEL, micro_batch=4))
    learner.network.train()
    learner.gradients(batch_of(model, 12), 0)
    assert int(model.network.visual.bn1.num_batches_tracked) == 3


def test_a_locked_tower_needs_no_gradient(tmp_path: Path) -> None:
    learner, _, model = learner_of(spec_of(tmp_path, tmp_path, model=VIT, micro_batch=4))
    for parameter in model.network.visual.parameters():
        parameter.requires_grad_(False)
    learner.gradients(batch_of(model, 12), 0)
    assert model.network.text_projection.grad is not None
    assert model.network.logit_scale.grad is not None
