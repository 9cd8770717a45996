"""The loop: schedules, what decays, steps that go astray, averaged weights, logs and scores on the way."""

import itertools
import json
import math
import random
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from small_training import VIT, batch_of, learner_of, pairs, spec_of, weights_in, write_set

from schemas.errors import InputError, RunError
from training import loop
from training.contrastive import train_contrastive
from training.ema import Ema
from training.loop import run_steps, take_step
from training.meters import peak_flops, training_flops
from training.model import build_model, load_model
from training.news import MOST_SKIPPED
from training.optimizer import optimizer_for
from training.schedule import learning_rate
from training.spike_guard import SpikeGuard


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("curated") / "shapes", pairs(64))


def test_the_learning_rate_warms_up_and_falls_to_zero(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, tmp_path, samples=32 * 100, warmup_steps=10, lr=1.0)
    rates = [learning_rate(step, spec) for step in range(101)]
    assert rates[:10] == pytest.approx([(n + 1) / 10 for n in range(10)])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert (rates[10], rates[55], rates[100]) == pytest.approx((1.0, 0.5, 0.0))


def test_a_constant_rate_cools_down_at_the_end(tmp_path: Path) -> None:
    changes = {"schedule": "constant", "warmup_steps": 10, "cooldown_steps": 20, "lr": 1.0}
    spec = spec_of(tmp_path, tmp_path, samples=32 * 100, **changes)
    rates = [learning_rate(step, spec) for step in range(101)]
    assert rates[9:81] == [1.0] * 72
    assert (rates[90], rates[99], rates[100]) == pytest.approx((0.5, 0.05, 0.0))


def test_gains_biases_and_temperature_do_not_decay(tmp_path: Path) -> None:
    network = build_model(spec_of(tmp_path, tmp_path), "cpu").network
    decayed, kept = optimizer_for(network, spec_of(tmp_path, tmp_path)).param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    assert {p.ndim >= 2 for p in decayed["params"]} == {True}
    assert {p.ndim >= 2 for p in kept["params"]} == {False}
    assert any(p is network.logit_scale for p in kept["params"])
    assert len(decayed["params"]) + len(kept["params"]) == len(list(network.parameters()))


def test_a_step_that_is_not_finite_changes_no_weight(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, tmp_path)
    learner, state, model = learner_of(spec)
    model.network.text_projection.data[0, 0] = math.inf
    before = [p.detach().clone() for p in model.network.parameters()]
    guard = SpikeGuard([], spec.grad_clip, learner.device)
    assert take_step(learner, state, batch_of(model, 2), spec, 1e-3, guard).noted(state)[1] is None
    assert (state.step, state.skipped) == (1, 1)
    assert all(torch.equal(now, then) for now, then in zip(model.network.parameters(), before, strict=True))


@pytest.mark.parametrize(("known", "longest", "sound"), [(100, 1.0, False), (99, 1.0, True), (100, 1e9, True)])
def test_a_spike_far_beyond_the_last_hundred_gradients_changes_no_weight(
    known: int, longest: float, sound: bool, tmp_path: Path
) -> None:
    spec = spec_of(tmp_path, tmp_path, grad_clip=longest)
    learner, state, model = learner_of(spec)
    guard = SpikeGuard([1.0] * known, spec.grad_clip, learner.device)
    gradients = learner.gradients

    def steep(batch: Any, step: int) -> Any:
        share = gradients(batch, step)
        for parameter in model.network.parameters():
            if parameter.grad is not None:
                parameter.grad *= 1e6
        return share

    learner.gradients = steep
    before = [p.detach().clone() for p in model.network.parameters()]
    _, norm = take_step(learner, state, batch_of(model, 4), spec, 1e-3, guard).noted(state)
    assert (norm is not None) == sound
    assert (state.skipped == 0) == sound
    changed = [not torch.equal(now, then) for now, then in zip(model.network.parameters(), before, strict=True)]
    assert any(changed) == sound


def test_lengths_of_gradients_are_told_as_the_list_of_the_last_ones_would_tell_them() -> None:
    draw, guard, known = random.Random(0), SpikeGuard([], 1.0, torch.device("cpu")), list[float]()
    for _ in range(600):
        norm = draw.choice([draw.uniform(0.5, 3.0), draw.uniform(0.5, 90.0), math.nan])
        spike = len(known) == 100 and norm > 20 * statistics.median(known)
        sound = math.isfinite(norm) and not spike
        assert bool(guard.finds_sound(torch.tensor(1.0), torch.tensor(norm, dtype=torch.float64))) == sound
        known = [*known, norm][-100:] if sound else known


def test_a_loop_that_is_a_step_ahead_of_its_device_trains_and_tells_the_same(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"samples": 32 * 7, "save_every": 3}
    train_contrastive(spec_of(data, tmp_path / "at once", **changes))
    monkeypatch.setattr(loop, "_BEHIND", {"cpu": 1})
    told: list[int] = []
    train_contrastive(spec_of(data, tmp_path / "behind", **changes), progress=lambda step, *_: told.append(step))
    assert told == list(range(1, 8))
    assert weights_in(tmp_path / "behind") == weights_in(tmp_path / "at once")
    lines = [
        [(one["step"], one["loss"], one["gradient"], one["lr"]) for one in map(json.loads, metrics) if "loss" in one]
        for metrics in ((tmp_path / run / "metrics.jsonl").read_text().splitlines() for run in ("behind", "at once"))
    ]
    assert lines[0] == lines[1]


def test_steps_that_all_go_astray_end_the_training_with_a_sentence(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, tmp_path, samples=32 * 100)
    learner, state, model = learner_of(spec)
    model.network.text_projection.data[0, 0] = math.inf
    with pytest.raises(RunError, match=f"went astray in {MOST_SKIPPED} steps in a row, up to step {MOST_SKIPPED} "):
        run_steps(learner, state, itertools.repeat(batch_of(model, 2)), spec, {})


def test_the_temperature_stays_below_a_hundred(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, tmp_path)
    learner, state, model = learner_of(spec)
    model.network.logit_scale.data.fill_(7.0)
    take_step(learner, state, batch_of(model, 2), spec, 1e-3, SpikeGuard([], spec.grad_clip, learner.device))
    assert float(model.network.logit_scale.detach()) == pytest.approx(math.log(100))


@pytest.mark.parametrize(("loss", "first"), [("clip", math.log(32)), ("siglip", 10.0)])
def test_an_untrained_model_knows_nothing(loss: str, first: float, tmp_path: Path) -> None:
    learner, _, model = learner_of(spec_of(tmp_path, tmp_path, loss=loss))
    model.network.logit_scale.data.fill_(0.0)  # what it does not know it shall not say loudly
    found = float(learner.gradients(batch_of(model, 32), 0))
    assert found == pytest.approx(first, abs=1.0 if loss == "siglip" else 0.2)


def test_bfloat16_is_for_the_towers_and_trains_nearly_as_float32(tmp_path: Path) -> None:
    found = []
    for precision in ("fp32", "bf16"):
        learner, _, model = learner_of(spec_of(tmp_path, tmp_path, model=VIT, precision=precision))
        found.append(float(learner.gradients(batch_of(model, 16), 0)))
        assert all(p.dtype == p.grad.dtype == torch.float32 for p in model.network.parameters())
    assert found[1] != found[0]
    assert found[1] == pytest.approx(found[0], rel=0.02)


def test_compile_takes_each_tower_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    monkeypatch.setattr(torch, "compile", lambda function: taken.append(function.__name__) or function)
    learner_of(spec_of(tmp_path, tmp_path, compile=True))
    assert taken == ["embed_pictures", "embed_captions"]


def test_phases_shorten_the_inputs_and_the_last_one_sees_them_whole(tmp_path: Path) -> None:
    phases = [{"until": 0.5, "image_px": 16, "text_tokens": 8, "patch_dropout": 0.5}, {"until": 1.0}]
    learner, _, model = learner_of(spec_of(tmp_path, tmp_path, model=VIT, samples=32 * 10, phases=phases))
    whole = learner_of(spec_of(tmp_path, tmp_path, model=VIT))[0]
    batch = batch_of(model, 8)
    assert float(learner.gradients(batch, 4)) != float(whole.gradients(batch, 4))
    assert float(learner.gradients(batch, 5)) == float(whole.gradients(batch, 5))


def test_a_locked_tower_keeps_its_weights(data: Path, tmp_path: Path) -> None:
    spec = spec_of(data, tmp_path, model=VIT, lock={"image": "all"}, samples=32 * 4)
    torch.manual_seed(spec.seed)
    before = build_model(spec, "cpu").network
    train_contrastive(spec)
    after = load_model(tmp_path / "model", "cpu").network
    assert torch.equal(after.visual.conv1.weight, before.visual.conv1.weight)
    assert not torch.equal(after.text_projection, before.text_projection)


def test_averaged_weights_follow_by_the_share_that_is_not_kept(tmp_path: Path) -> None:
    network = build_model(spec_of(tmp_path, tmp_path), "cpu").network
    ema = Ema(network, 0.75)
    before = network.text_projection.detach().clone()
    with torch.no_grad():
        network.text_projection += 4.0
        network.visual.bn1.running_mean += 4.0
    ema.update(network)
    torch.testing.assert_close(ema.weights["text_projection"], before + 1.0)
    assert torch.equal(ema.weights["visual.bn1.running_mean"], network.visual.bn1.running_mean)


def test_averaged_weights_are_saved_and_scored_beside_the_last_ones(data: Path, tmp_path: Path) -> None:
    labelled = tmp_path / "labelled"
    for number, (_, members) in enumerate(pairs(4)):
        (labelled / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        (labelled / "ab"[number % 2] / f"{number}.png").write_bytes(members["png"])
    test = {"zeroshot": {"folder": str(labelled)}}
    spec = spec_of(data, tmp_path / "out", ema=0.5, evaluate=[test], evaluate_every=2)
    result = train_contrastive(spec)
    assert set(result.metrics["zeroshot"]) == set(result.metrics["zeroshot_ema"])
    assert set(result.metrics["zeroshot"]) >= {"top1", "mean_per_class_recall"}
    averaged = tmp_path / "out" / "model_ema" / "open_clip_model.safetensors"
    assert averaged.read_bytes() != weights_in(tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "zeroshot" in line] == [2, 4]
    train_contrastive(spec_of(data, tmp_path / "plain", ema=0.5))  # looking at a model changes nothing
    assert weights_in(tmp_path / "plain") == weights_in(tmp_path / "out")


def test_operations_are_those_of_the_published_profile(tmp_path: Path) -> None:
    # Forward passes of ViT-B-32: 14.78 GFLOP by open_clip's model_profile.csv, half of them by its count of MACs.
    with torch.device("meta"):
        network = open_clip.create_model("ViT-B-32", load_weights=False, device="meta")
    _, _, model = learner_of(spec_of(tmp_path, tmp_path))
    on_meta = replace(model, network=network, side_px=224)
    assert training_flops(on_meta, 77) == pytest.approx(3 * 14.78e9, rel=1e-3)
    for parameter in network.visual.parameters():
        parameter.requires_grad_(False)
    locked = training_flops(on_meta, 77)
    assert 14.78e9 < locked < 2.5 * 14.78e9
    assert peak_flops(torch.device("cpu")) is None


def test_tensorboard_is_told_what_metrics_say(data: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train_contrastive(spec_of(data, tmp_path, log=["tensorboard"]))
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    told = [(event.step, event.value) for event in board.Scalars("loss")]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [step for step, _ in told] == [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [loss for _, loss in told] == pytest.approx([line["loss"] for line in lines])


@pytest.mark.parametrize("board", ["wandb", "mlflow"])
def test_a_board_that_is_not_installed_is_refused(board: str, data: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=f"log names {board}, whose package is not installed here; install {board}"):
        train_contrastive(spec_of(data, tmp_path / "out", log=[board]))
    assert not (tmp_path / "out").exists()
