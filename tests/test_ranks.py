"""Several ranks train as one: the same losses, gradients and weights, whatever is shared out and however it ends."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forked_ranks import PAIRS, loss_and_gradients, run_cases
from safetensors.torch import load_file
from small_training import VIT, batch_of, learner_of, losses_in, pairs, spec_of, write_set

from training.ranks import ALONE

Run = Callable[..., None]
GRADIENTS: dict[str, dict[str, Any]] = {
    "ddp": {}, "ddp cached": {"loss": "siglip", "micro_batch": 4},
    "fsdp cached": {"parallel": "fsdp", "micro_batch": 4},
}  # fmt: skip
BOTH = {"model": VIT, "samples": 32 * 6, "ema": 0.8}


def spec_record(curated: Path, output: Path, **changes: Any) -> dict[str, Any]:
    return spec_of(curated, output, **changes).model_dump(mode="json")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all cases of this file left, run by one process that imported everything once."""
    root = tmp_path_factory.mktemp("ranks")
    data = write_set(root / "shapes", pairs(96))
    cases: list[dict[str, Any]] = []
    for ranks in (2, 4):
        cases.append({"do": "losses", "ranks": ranks, "out": str(root / f"losses-{ranks}")})
    for name, changes in GRADIENTS.items():
        spec = spec_record(data, root / "unused", model=VIT, **changes)
        cases.append({"do": "gradients", "ranks": 2, "out": str(root / name), "spec": spec})

    def train(output: str, ranks: int, changes: dict[str, Any], **case: Any) -> None:
        spec = spec_record(data, root / output, **BOTH | changes)
        cases.append({"do": "train", "ranks": ranks, "out": str(root / output), "spec": spec, **case})

    train("alone", 1, {})
    train("both", 2, {})
    train("killed", 2, {"save_every": 2}, kill_at=3)
    train("killed", 2, {"save_every": 2}, kill_at=2)  # once more, after steps 3 and 4
    train("killed", 2, {"save_every": 2})
    train("stopped", 2, {"parallel": "fsdp"}, stop_at=3)
    train("stopped", 1, {})
    for case in cases:
        Path(case["out"]).mkdir(exist_ok=True)
    run_cases(root, cases)
    return root


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("loss", ["clip-None", "clip-2", "siglip-None", "siglip-2"])
def test_the_losses_of_ranks_are_the_loss_of_one(ran: Path, ranks: int, loss: str) -> None:
    name, _, chunk = loss.partition("-")
    whole = loss_and_gradients(name, None if chunk == "None" else int(chunk), ALONE)
    parts = [torch.load(ran / f"losses-{ranks}" / f"rank-{rank}.pt")[loss] for rank in range(ranks)]
    found = [torch.stack([part[0] for part in parts]).mean()]
    found += [torch.cat([part[at] for part in parts]) / ranks for at in (1, 2)]
    found += [torch.stack([part[at] for part in parts]).mean() for at in range(3, len(whole))]
    for one, expected in zip(found, whole, strict=True):
        torch.testing.assert_close(one, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("case", GRADIENTS)
def test_the_gradients_of_ranks_are_those_of_one(ran: Path, tmp_path: Path, case: str) -> None:
    learner, _, model = learner_of(spec_of(tmp_path, tmp_path, model=VIT, loss=GRADIENTS[case].get("loss", "clip")))
    loss = float(learner.gradients(batch_of(model, PAIRS), 0))
    found = torch.load(ran / case / "gradients.pt")
    assert found["loss"] == pytest.approx(loss, abs=1e-6)
    for name, parameter in model.network.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(found["gradients"][name], parameter.grad, atol=1e-6, rtol=1e-4, msg=name)
    norm = torch.nn.utils.clip_grad_norm_(model.network.parameters(), 1e9)
    torch.testing.assert_close(found["norm"], norm, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("output", ["both", "stopped"])
@pytest.mark.parametrize("kind", ["model", "model_ema"])
def test_two_ranks_train_to_the_weights_of_one(ran: Path, output: str, kind: str) -> None:
    """Also where two had shared the weights out, were stopped, and one went on."""
    file = f"{kind}/open_clip_model.safetensors"
    expected, found = load_file(ran / "alone" / file), load_file(ran / output / file)
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=2e-4, rtol=1e-3, msg=name)
    assert losses_in(ran / output) == pytest.approx(losses_in(ran / "alone"), abs=1e-4)


def test_ranks_killed_twice_end_with_the_same_bits(ran: Path) -> None:
    for kind in ("model", "model_ema"):
        file = f"{kind}/open_clip_model.safetensors"
        assert (ran / "killed" / file).read_bytes() == (ran / "both" / file).read_bytes()
    assert losses_in(ran / "killed") == losses_in(ran / "both")


def test_only_the_first_rank_writes(ran: Path) -> None:
    lines = [json.loads(line) for line in (ran / "both" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
