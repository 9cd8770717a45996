"""Contrastive training: exact losses, an order that can be resumed, and a small model that learns and is kept."""

import csv
import hashlib
import io
import itertools
import json
import math
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from schemas.errors import InputError, RunError
from schemas.picture_transform import square
from schemas.pins import read_pins
from schemas.shard import ShardWriter
from schemas.training import TrainingSpec
from training import checkpoint
from training.checkpoint import State
from training.contrastive import TrainResult, train_contrastive
from training.curated_set import Cache, CuratedSet
from training.evaluate.zeroshot import scores, zeroshot
from training.loop import learning_rate, loss_of, optimizer_for, take_step
from training.losses import info_nce, pairwise_sigmoid
from training.model import build_model, load_model
from training.order import groups_of_epoch, next_set, order_from

MODEL = str(Path(__file__).with_name("tiny_conv.json"))
COLOURS = {"red": (220, 30, 30), "green": (30, 180, 60), "blue": (40, 60, 220), "yellow": (230, 210, 40)}
PLACES = {"top left": (4, 4), "top right": (34, 4), "bottom left": (4, 34), "bottom right": (34, 34)}
KINDS = list(itertools.product(COLOURS, ("square", "disc"), PLACES, ("grey", "black")))


# ---------------------------------------------------------------- generated data


def picture(colour: str, shape: str, place: str, ground: str, draw: random.Random) -> Image.Image:
    image = Image.new("RGB", (64, 64), ground)
    left, top = (at + draw.randint(-2, 2) for at in PLACES[place])
    pen = ImageDraw.Draw(image)
    (pen.ellipse if shape == "disc" else pen.rectangle)((left, top, left + 24, top + 24), fill=COLOURS[colour])
    return image


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def pairs(count: int, *, shuffled: bool = False) -> list[tuple[str, dict[str, bytes]]]:
    draw = random.Random(1)
    kinds = [KINDS[i % len(KINDS)] for i in range(count)]
    captions = [f"a {colour} {shape} at the {place} on {ground}" for colour, shape, place, ground in kinds]
    if shuffled:
        draw.shuffle(captions)
    made = []
    for number, (kind, caption) in enumerate(zip(kinds, captions, strict=True)):
        columns = {"caption": caption, "short": kind[0], "none": None}
        members = {"png": png(picture(*kind, draw)), "txt": caption.encode(), "json": json.dumps(columns).encode()}
        made.append((f"{number:032x}", members))
    return made


def write_set(
    folder: Path, rows: list[tuple[str, dict[str, bytes]]], per_shard: int = 100, holdout: int = 0, version: str = "v1"
) -> Path:
    """A curated set as a run publishes it, with tars alone; the last `holdout` shards are held out."""
    shards = []
    chunks = [rows[i : i + per_shard] for i in range(0, len(rows), per_shard)]
    (folder / version).mkdir(parents=True)
    for number, chunk in enumerate(chunks):
        path = folder / version / f"shard-{number:06d}.tar"
        with open(path, "wb") as stream, ShardWriter(stream) as writer:
            for key, members in chunk:
                writer.add(key, members)
        name = f"{version}/{path.name}"
        shards.append(
            {
                "tar": name, "tar_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "tar_bytes": path.stat().st_size, "parquet": name.replace(".tar", ".parquet"),
                "parquet_sha256": "0" * 64, "parquet_bytes": 0, "rows": len(chunk),
                "holdout": number >= len(chunks) - holdout,
            }
        )  # fmt: skip
    columns = [{"name": name, "type": "string", "meaning": ""} for name in ("caption", "short", "none")]
    manifest = {
        "name": folder.name, "version": version, "rows": len(rows), "pool": len(rows), "columns": columns,
        "shards": shards, "samples": [], "funnel": [], "spec": {}, "operators": {},
    }  # fmt: skip
    for file in (f"{version}.json", "manifest.json"):
        (folder / file).write_text(json.dumps(manifest))
    return folder


def spec_of(curated: Path, output: Path, **changes: Any) -> TrainingSpec:
    fields: dict[str, Any] = {
        "name": "small", "task": "contrastive", "data": [{"set": str(curated)}], "model": MODEL, "batch_size": 32,
        "samples": 32 * 6, "lr": 2e-3, "warmup_steps": 3, "weight_decay": 0.1, "device": "cpu", "output": str(output),
    }  # fmt: skip
    return TrainingSpec.model_validate({**fields, **changes})


def losses_in(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights_in(folder: Path) -> bytes:
    return (folder / "model" / "open_clip_model.safetensors").read_bytes()


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for each other make a busy machine crawl
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("curated") / "shapes", pairs(400), holdout=1)


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return train_contrastive(spec_of(data, tmp_path_factory.mktemp("trained"), samples=64 * 60, batch_size=64))


# ---------------------------------------------------------------- losses


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


# ---------------------------------------------------------------- order


def test_an_epoch_has_every_shard_once_and_each_its_own_order() -> None:
    rows = [10] * 12
    epochs = [groups_of_epoch(rows, 30, (7, 0), epoch) for epoch in (0, 1)]
    assert all(sorted(shard for group in groups for shard in group) == list(range(12)) for groups in epochs)
    assert [len(group) for group in epochs[0]] == [3] * 4
    assert epochs[0] != epochs[1]
    assert groups_of_epoch(rows, 30, (8, 0), 0) != epochs[0]


def test_the_order_from_any_row_is_the_tail_of_the_whole_order() -> None:
    rows = [5, 7, 3]

    def seen(start: int, count: int) -> list[tuple[int, tuple[int, ...], int]]:
        flat = ((e, group, int(p)) for e, group, places in order_from(rows, 6, (1, 0), start) for p in places)
        return list(itertools.islice(flat, count))

    whole = seen(0, 45)
    assert all(seen(start, 45 - start) == whole[start:] for start in range(45))
    assert len(set(whole[:15])) == 15


def test_sets_are_mixed_by_their_weights() -> None:
    seen = [0, 0, 0]
    for _ in range(100):
        seen[next_set(seen, [1.0, 3.0, 6.0])] += 1
    assert seen == [10, 30, 60]


# ---------------------------------------------------------------- data


def no_cache() -> Cache:
    return Cache(0, 1, lambda pictures: [None for _ in pictures])


def drawn(one: CuratedSet, count: int, seed: int = 0) -> list[tuple[str, str]]:
    rows = itertools.islice(one.from_row(0, 50, (seed, 0), no_cache()), count)
    return [(row.key, caption) for row, caption in rows]


def test_rows_held_out_are_never_seen(data: Path) -> None:
    one = CuratedSet(data / "manifest.json", {})
    assert one.rows == 300
    assert {key for key, _ in drawn(one, 600)} == {f"{n:032x}" for n in range(300)}


def test_captions_are_drawn_by_weight_and_missing_ones_are_passed_over(data: Path) -> None:
    one = CuratedSet(data / "manifest.json", {"caption": 0.25, "short": 0.75, "none": 5.0})
    short = [caption in COLOURS for _, caption in drawn(one, 900)]
    assert 0.68 < np.mean(short) < 0.82
    assert [c for k, c in sorted(drawn(one, 300))] != [c for k, c in sorted(drawn(one, 300, seed=1))]


def test_a_caption_column_that_is_not_there_is_refused(data: Path) -> None:
    said = "its shards have no column 'vlm' for captions; they have: caption, short, none"
    with pytest.raises(InputError, match=said):
        CuratedSet(data / "manifest.json", {"vlm": 1.0})


def test_a_shard_that_was_changed_is_refused(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "changed", pairs(20))
    tar = folder / "v1" / "shard-000000.tar"
    content = bytearray(tar.read_bytes())
    content[700] ^= 1
    tar.write_bytes(content)
    with pytest.raises(RunError, match="is not the file that"):
        drawn(CuratedSet(folder / "manifest.json", {}), 1)


def test_the_square_is_that_of_open_clip() -> None:
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    theirs = Compose([Resize(64, InterpolationMode.BICUBIC), CenterCrop(64)])
    draw = np.random.default_rng(0)
    for height, width in [(64, 64), (64, 99), (130, 64), (77, 201), (333, 100), (20, 31)]:
        pixels_HWC = draw.integers(0, 256, (height, width, 3), np.uint8)
        assert np.array_equal(square(pixels_HWC, 64), np.asarray(theirs(Image.fromarray(pixels_HWC))))


def test_a_long_strip_is_cut_before_it_is_enlarged() -> None:
    strip_HWC = np.zeros((2, 16_000, 3), np.uint8)
    strip_HWC[:, 7_990:8_010] = 255
    made_HWC = square(strip_HWC, 64)
    assert made_HWC.shape == (64, 64, 3)
    assert made_HWC.min() == 255


# ---------------------------------------------------------------- the loop


def test_the_learning_rate_warms_up_and_falls_to_zero(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, tmp_path, samples=32 * 100, warmup_steps=10, lr=1.0)
    rates = [learning_rate(step, spec) for step in range(101)]
    assert rates[:10] == pytest.approx([(n + 1) / 10 for n in range(10)])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert (rates[10], rates[55], rates[100]) == pytest.approx((1.0, 0.5, 0.0))


def test_gains_biases_and_temperature_do_not_decay(tmp_path: Path) -> None:
    network = build_model(spec_of(tmp_path, tmp_path), "cpu").network
    decayed, kept = optimizer_for(network, spec_of(tmp_path, tmp_path)).param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    assert {p.ndim >= 2 for p in decayed["params"]} == {True}
    assert {p.ndim >= 2 for p in kept["params"]} == {False}
    assert any(p is network.logit_scale for p in kept["params"])
    assert len(decayed["params"]) + len(kept["params"]) == len(list(network.parameters()))


def test_a_step_that_is_not_finite_changes_no_weight(tmp_path: Path) -> None:
    from training.batches import Batch

    spec = spec_of(tmp_path, tmp_path)
    model = build_model(spec, "cpu")
    state = State(model.network, optimizer_for(model.network, spec))
    tokens_BT = model.tokenize(["a red disc", "a blue square"]).numpy()
    batch = Batch(np.zeros((2, 3, 32, 32), np.uint8), tokens_BT, (2,), 0)
    model.network.text_projection.data[0, 0] = math.inf
    before = [p.detach().clone() for p in model.network.parameters()]
    assert take_step(model, state, batch, spec, 1e-3)[1] is None
    assert (state.step, state.skipped) == (1, 1)
    assert all(torch.equal(now, then) for now, then in zip(model.network.parameters(), before, strict=True))


def test_the_temperature_stays_below_a_hundred(tmp_path: Path) -> None:
    from training.batches import Batch

    spec = spec_of(tmp_path, tmp_path)
    model = build_model(spec, "cpu")
    model.network.logit_scale.data.fill_(7.0)
    state = State(model.network, optimizer_for(model.network, spec))
    pixels_BCHW = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), np.uint8)
    batch = Batch(pixels_BCHW, model.tokenize(["a", "b"]).numpy(), (2,), 0)
    take_step(model, state, batch, spec, 1e-3)
    assert float(model.network.logit_scale.detach()) == pytest.approx(math.log(100))


@pytest.mark.parametrize(("loss", "first"), [("clip", math.log(32)), ("siglip", 10.0)])
def test_an_untrained_model_knows_nothing(loss: str, first: float, tmp_path: Path) -> None:
    from training.batches import Batch

    spec = spec_of(tmp_path, tmp_path, loss=loss)
    torch.manual_seed(0)
    model = build_model(spec, "cpu")
    model.network.logit_scale.data.fill_(0.0)  # what it does not know it shall not say loudly
    pixels_BCHW = np.random.default_rng(0).integers(0, 256, (32, 3, 32, 32), np.uint8)
    batch = Batch(pixels_BCHW, model.tokenize([f"caption {n}" for n in range(32)]).numpy(), (32,), 0)
    assert float(loss_of(model, batch, spec).detach()) == pytest.approx(first, abs=1.0 if loss == "siglip" else 0.2)


# ---------------------------------------------------------------- the whole


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
    with pytest.raises(InputError, match="was made with another lr; name another `output`"):
        train_contrastive(spec_of(data, tmp_path, samples=128, lr=1e-4))
    (tmp_path / checkpoint.FILE).write_bytes(b"no checkpoint")
    with pytest.raises(RunError, match="cannot be read"):
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
