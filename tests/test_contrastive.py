"""Contrastive training as a whole: a small model that learns, is kept, and goes on where it was stopped."""

import csv
import fcntl
import json
import math
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_training import COLOURS, KINDS, PLACES, losses_in, pairs, picture, spec_of, weights_in, write_set

from schemas.errors import InputError, RunError
from schemas.picture_transform import square
from schemas.pins import read_pins
from training.checkpoint import newest
from training.contrastive import train_contrastive
from training.evaluate.zeroshot import scores, zeroshot
from training.model import load_model
from training.run_folder import TrainResult


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("curated") / "shapes", pairs(400), holdout=1)


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return train_contrastive(spec_of(data, tmp_path_factory.mktemp("trained"), samples=64 * 60, batch_size=64))


def test_the_version_that_was_trained_on_is_pinned(data: Path, trained: TrainResult) -> None:
    pins = [(pin.version, pin.by) for pin in read_pins(data)]
    version = json.loads((data / "manifest.json").read_text())["version"]
    assert (version, f"the training run small in {trained.folder.resolve()}") in pins


def test_it_learns_and_shuffled_captions_teach_less(trained: TrainResult, tmp_path: Path) -> None:
    losses = losses_in(trained.folder)
    assert losses[0] == pytest.approx(math.log(64), abs=1.0)
    wrong = write_set(tmp_path / "wrong", pairs(400, shuffled=True), holdout=1)
    train_contrastive(spec_of(wrong, tmp_path / "out", samples=64 * 60, batch_size=64))
    control = losses_in(tmp_path / "out")
    assert np.mean(losses[-5:]) < 0.5 * losses[0]
    assert np.mean(control[-5:]) > 2 * np.mean(losses[-5:])


def test_zero_shot_names_the_colours_of_pictures_never_seen(trained: TrainResult) -> None:
    draw = random.Random(5)
    kinds = [draw.choice(KINDS) for _ in range(80)]
    pixels = [np.asarray(picture(*kind, draw)) for kind in kinds]
    names = list(COLOURS)
    labels = [names.index(kind[0]) for kind in kinds]
    templates = [f"a {{}} {shape} at the {place} on grey" for shape in ("square", "disc") for place in PLACES]
    found = zeroshot(trained.model_folder, pixels, labels, names, templates)
    assert found["top1"] > 0.4  # by chance 0.25
    assert found["mean_per_class_recall"] > 0.4


def test_open_clip_loads_what_was_saved_and_computes_the_same(trained: TrainResult) -> None:
    import open_clip

    theirs = open_clip.create_model(f"local-dir:{trained.model_folder}", require_pretrained=True).eval()
    transform = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(**theirs.visual.preprocess_cfg), is_train=False
    )
    tokens_BT = open_clip.get_tokenizer(f"local-dir:{trained.model_folder}")(["a red disc", "a blue square"])
    images = [picture(*KINDS[n], random.Random(n)).resize((100, 80)) for n in (0, 40)]
    ours = load_model(trained.model_folder, "cpu")
    pixels_BCHW = torch.from_numpy(np.stack([square(np.asarray(i), 32).transpose(2, 0, 1) for i in images]))
    with torch.inference_mode():
        image_BD, text_BD, scale = theirs(torch.stack([transform(i) for i in images]), tokens_BT)
        expected = scale * image_BD @ text_BD.T
        logits = ours.network.logit_scale.exp() * ours.embed_pictures(pixels_BCHW) @ ours.embed_captions(tokens_BT).T
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-5)


def test_the_same_spec_gives_the_same_weights_whatever_the_workers(data: Path, tmp_path: Path) -> None:
    train_contrastive(spec_of(data, tmp_path / "a", workers=1, cache_gb=0))
    train_contrastive(spec_of(data, tmp_path / "b", workers=5, cache_gb=1))
    train_contrastive(spec_of(data, tmp_path / "c", seed=1))
    assert weights_in(tmp_path / "a") == weights_in(tmp_path / "b")
    assert weights_in(tmp_path / "a") != weights_in(tmp_path / "c")


class Terminated(BaseException):
    """What the listener of this test raises for SIGTERM."""


def test_sigterm_saves_and_the_next_run_goes_on_as_if_never_stopped(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "shapes", pairs(120), per_shard=50)
    train_contrastive(spec_of(folder, tmp_path / "whole"))

    def at_three(step: int, *_: object) -> None:
        if step == 3:
            signal.raise_signal(signal.SIGTERM)

    def listener(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, listener)
    try:
        with pytest.raises(Terminated):
            train_contrastive(spec_of(folder, tmp_path / "cut"), progress=at_three)
        assert signal.getsignal(signal.SIGTERM) is listener
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(losses_in(tmp_path / "cut")) == 3
    write_set(folder, pairs(60), version="v2")  # a stopped training keeps the version that it began with
    steps: list[int] = []
    result = train_contrastive(spec_of(folder, tmp_path / "cut"), progress=lambda step, *_: steps.append(step))
    assert steps == [4, 5, 6]
    assert losses_in(tmp_path / "cut") == losses_in(tmp_path / "whole")
    assert weights_in(tmp_path / "cut") == weights_in(tmp_path / "whole")
    assert result.metrics["last_loss"] == losses_in(tmp_path / "whole")[-1]


def test_a_finished_training_is_not_done_again_and_another_is_refused(data: Path, tmp_path: Path) -> None:
    first = train_contrastive(spec_of(data, tmp_path, samples=128))
    steps: list[int] = []
    again = train_contrastive(spec_of(data, tmp_path, samples=128), progress=lambda step, *_: steps.append(step))
    assert (steps, again.metrics) == ([], first.metrics)
    with pytest.raises(InputError, match=r"another lr \(lr: 0.002 then, 0.0001 now\); name another `output`"):
        train_contrastive(spec_of(data, tmp_path, samples=128, lr=1e-4))
    (newest(tmp_path) / ".metadata").write_bytes(b"no checkpoint")
    with pytest.raises(RunError, match="cannot be read"):
        train_contrastive(spec_of(data, tmp_path, samples=128))


def test_a_folder_belongs_to_one_training_at_a_time(data: Path, tmp_path: Path) -> None:
    with open(tmp_path / ".lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another training is at work in"):
            train_contrastive(spec_of(data, tmp_path, samples=128))
    train_contrastive(spec_of(data, tmp_path, samples=128))


def test_siglip_trains_from_a_clip_folder_and_is_scored_by_table(
    trained: TrainResult, data: Path, tmp_path: Path
) -> None:
    with open(tmp_path / "labels.csv", "w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["file", "label"])
        for number, kind in enumerate(KINDS[::7]):
            picture(*kind, random.Random(number)).save(tmp_path / f"{number}.png")
            table.writerow([f"{number}.png", kind[0]])
    test = {"zeroshot": {"table": str(tmp_path / "labels.csv"), "templates": "a {} disc at the top left on grey"}}
    changes = {"loss": "siglip", "pretrained": str(trained.model_folder), "samples": 128, "loss_chunk": 8}
    result = train_contrastive(spec_of(data, tmp_path / "out", evaluate=[test], **changes))
    assert set(result.metrics["zeroshot"]) == {"top1", "mean_per_class_recall", "per_class"}
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == result.metrics
    assert load_model(result.model_folder, "cpu").network.logit_bias is not None


def test_scores_of_known_predictions() -> None:
    found = scores(np.array([0, 0, 0, 1, 1]), np.array([0, 0, 0, 0, 1]))
    assert found == {"top1": 0.8, "mean_per_class_recall": 0.875}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 301, "samples": 602, "warmup_steps": 0}, "the data have 300 rows, fewer than one batch of 301"),
        ({"model": "ViT-B-33"}, "open_clip has none of that name; did you mean ViT-B-32"),
        ({"model": "gone.json"}, "there is no such file"),
        ({"data": [{"set": "nowhere"}]}, "there is no folder nowhere"),
        ({"evaluate": [{"zeroshot": {"folder": "nowhere"}}]}, "there is no folder nowhere"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_written(
    changes: dict[str, Any], words: str, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        train_contrastive(spec_of(data, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()
