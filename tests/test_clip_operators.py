"""clip_embed and clip_score over a tiny open_clip model with random weights, saved as save_for_hf saves it."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import textured_jpeg
from pydantic import ValidationError

from curation.models import clip_passes
from curation.operator import Batch, Failure
from curation.operators.clip_embed import ClipEmbed
from curation.operators.clip_score import ClipScore
from schemas.errors import InputError, RunError

WIDTH = 16
CONFIG = {
    "embed_dim": WIDTH,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
CAPTIONS = ["a red circle", "", None, "ein Hund\0am Strand", "🏳️‍🌈", "a" * 1_000_000, "a red circle &amp; more"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model of the smallest kind, as `local-dir:` reads it."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    torch.set_num_threads(1)
    found = tmp_path_factory.mktemp("model")
    model = open_clip.CLIP(**CONFIG)
    save_file(model.state_dict(), found / "open_clip_model.safetensors")
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bicubic"}
    (found / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": preprocess}))
    return found


@pytest.fixture(scope="module")
def opened(folder):
    return ClipEmbed(model=str(folder), batch_size=4).open()


def batch(count: int, start: int = 0) -> Batch:
    numbers = range(start, start + count)
    table = pa.table(
        {
            "key": [f"{n:032x}" for n in numbers],
            "caption": pa.array([CAPTIONS[n % len(CAPTIONS)] for n in numbers], pa.string()),
        }
    )
    return Batch(table, [textured_jpeg(n, 40 + n, 56 - n) for n in numbers])


def embedded(folder: Path, opened, rows: Batch, **parameters) -> dict[str, np.ndarray]:
    found = ClipEmbed(model=str(folder), **{"batch_size": 4} | parameters).run(rows, opened)
    assert not found.failures
    return dict(found.values)


def scored(image: list[list[float]], text: list[list[float]]):
    columns = {"key": pa.array([str(number) for number in range(len(image))])}
    for name, vectors in (("clip_image", image), ("clip_text", text)):
        stored = [np.array(vector, np.float16).tobytes() for vector in vectors]
        columns[name] = pa.array(stored, pa.binary(len(stored[0])))
    return ClipScore().run(Batch(pa.table(columns)), None)


def test_vectors_have_the_width_of_the_model_and_unit_length(folder, opened):
    operator = ClipEmbed(model=str(folder))
    assert [(column.name, column.width) for column in operator.adds] == [("clip_image", WIDTH), ("clip_text", WIDTH)]
    found = embedded(folder, opened, batch(7))
    for name in ("clip_image", "clip_text"):
        assert found[name].shape == (7, WIDTH)
        assert found[name].dtype == np.float32
        assert np.allclose(np.linalg.norm(found[name], axis=1), 1, atol=1e-6)


def test_vectors_are_those_that_open_clip_itself_gives(folder, opened):
    import open_clip
    import torch
    from PIL import Image

    from schemas.pixels import decode

    rows = batch(5)
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    pixels = torch.stack([transform(Image.fromarray(decode(stored))) for stored in rows.stored])
    captions = [caption or "" for caption in rows["caption"].to_pylist()]
    with torch.inference_mode():
        image_ND = model.eval().encode_image(pixels, normalize=True).numpy()
        text_ND = model.encode_text(tokenizer(captions), normalize=True).numpy()
    found = embedded(folder, opened, rows)
    assert np.allclose(found["clip_image"], image_ND, atol=1e-5)
    assert np.allclose(found["clip_text"], text_ND, atol=1e-5)


def test_pictures_are_normalised_to_the_bits_of_open_clips_transform(folder, opened):
    import open_clip
    import torch
    from PIL import Image

    from schemas.pixels import decode

    rows = batch(4)
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    pixels_BCHW = torch.stack([transform(Image.fromarray(decode(stored))) for stored in rows.stored])
    with torch.inference_mode():
        image_BD = torch.nn.functional.normalize(model.eval().encode_image(pixels_BCHW), dim=-1).numpy()
    assert embedded(folder, opened, rows)["clip_image"].tobytes() == image_BD.tobytes()


@pytest.mark.parametrize("ahead", [0, 1, 2])
@pytest.mark.parametrize("sizes", [[7, 7, 7], [1] * 9, [13, 1, 4]])
def test_batches_decoded_ahead_give_the_bits_of_each_by_itself(folder, opened, ahead, sizes):
    starts = np.cumsum([0, *sizes[:-1]]).tolist()
    given = [(np.arange(size) + start, batch(size, start)) for size, start in zip(sizes, starts, strict=True)]
    given[1][1].stored = [b"no picture", *given[1][1].stored[1:]]
    with ThreadPoolExecutor(3) as decoders:
        for number, found in enumerate(clip_passes.embedded(iter(given), opened, WIDTH, 4, decoders, ahead)):
            rows, alone = given[number]
            assert found.rows is rows  # who gave them knows them again
            one = ClipEmbed(model=str(folder), batch_size=4).run(alone, opened)
            assert found.image_ND.tobytes() == one.values["clip_image"].tobytes()
            assert found.text_ND.tobytes() == one.values["clip_text"].tobytes()
            assert found.failures == one.failures
    assert number == len(sizes) - 1


def test_nothing_is_taken_ahead_where_nothing_is_gained(folder, opened):
    taken: list[int] = []

    def watched():
        for number in range(4):
            taken.append(number)
            yield np.arange(6), batch(6, 6 * number)

    with ThreadPoolExecutor(3) as decoders:
        for number, _ in enumerate(clip_passes.embedded(watched(), opened, WIDTH, 4, decoders, 0)):
            assert taken == list(range(number + 1))


def test_a_picture_that_cannot_be_made_ready_fails_alone(folder, opened, monkeypatch):
    monkeypatch.setattr(opened, "seen", lambda pixels_HWC: 1 / 0 if len(pixels_HWC) == 55 else seen(pixels_HWC))
    seen = type(opened).seen.__get__(opened)
    found = ClipEmbed(model=str(folder), batch_size=4).run(batch(5), opened)
    assert {row: failure.error for row, failure in found.failures.items()} == {1: "ZeroDivisionError: division by zero"}


def test_a_compiled_model_gives_nearly_the_same_vectors(folder, opened, monkeypatch):
    import torch

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # inductor takes 40 s
    compiled = ClipEmbed(model=str(folder), batch_size=4, compile=True)
    found = embedded(folder, compiled.open(), batch(6), compile=True)
    for name, vectors_ND in embedded(folder, opened, batch(6)).items():
        assert np.allclose(found[name], vectors_ND, atol=1e-5)


@pytest.fixture(scope="module")
def siglip(tmp_path_factory) -> Path:
    """A SigLIP of the smallest kind, with a tokenizer of its own beside its weights."""
    import open_clip
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    torch.manual_seed(0)
    found = tmp_path_factory.mktemp("siglip")
    words = {word: number for number, word in enumerate(["<pad>", "</s>", "<unk>", "a", "red", "circle", "more"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(found)
    text = {"context_length": 8, "vocab_size": 7, "width": 32, "heads": 2, "layers": 2, "hf_tokenizer_name": "own"}
    text |= {"no_causal_mask": True, "pool_type": "last", "tokenizer_kwargs": {"clean": "canonicalize"}}
    config = {**CONFIG, "text_cfg": text, "init_logit_bias": -10, "custom_text": True}
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    (found / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    model = open_clip.create_model(f"local-dir:{found}", load_weights=False)
    save_file(model.state_dict(), found / "open_clip_model.safetensors")
    return found


def test_a_siglip_with_its_own_tokenizer_needs_no_network(siglip):
    import open_clip
    import torch
    from PIL import Image

    from schemas.pixels import decode

    operator = ClipEmbed(model=str(siglip), batch_size=4)
    operator.check()
    rows = batch(4)
    found = embedded(siglip, operator.open(), rows)
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{siglip}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{siglip}")
    pixels_BCHW = torch.stack([transform(Image.fromarray(decode(stored))) for stored in rows.stored])
    with torch.inference_mode():
        image_BD = model.eval().encode_image(pixels_BCHW, normalize=True).numpy()
        text_BD = model.encode_text(tokenizer([caption or "" for caption in CAPTIONS[:4]]), normalize=True).numpy()
    assert np.allclose(found["clip_image"], image_BD, atol=1e-6)
    assert np.allclose(found["clip_text"], text_BD, atol=1e-6)
    assert not np.allclose(found["clip_text"][0], found["clip_text"][1], atol=1e-3)


@pytest.mark.parametrize("sizes", [[1] * 11, [4, 4, 3], [3, 8], [10, 1]])
def test_vectors_do_not_depend_on_how_rows_are_split_into_batches(folder, opened, sizes):
    whole = embedded(folder, opened, batch(11))
    start = 0
    for size in sizes:
        part = embedded(folder, opened, batch(size, start))
        for name, vectors_ND in part.items():
            assert vectors_ND.tobytes() == whole[name][start : start + size].tobytes()
        start += size


def test_a_missing_caption_is_an_empty_one(folder, opened):
    found = embedded(folder, opened, batch(3))
    assert found["clip_text"][1].tobytes() == found["clip_text"][2].tobytes()


def test_a_broken_picture_fails_alone(folder, opened):
    rows = batch(6)
    rows.stored = [*rows.stored[:2], b"no picture", rows.stored[3], rows.stored[4][:100], rows.stored[5]]
    found = ClipEmbed(model=str(folder), batch_size=4).run(rows, opened)
    assert sorted(found.failures) == [2, 4]
    assert all(isinstance(failure, Failure) and failure.error for failure in found.failures.values())
    whole = embedded(folder, opened, batch(6))
    for row in (0, 1, 3, 5):
        assert np.array_equal(found.values["clip_image"][row], whole["clip_image"][row])


def test_bf16_gives_nearly_the_same_vectors(folder, opened):
    half = ClipEmbed(model=str(folder), batch_size=4, precision="bf16")
    found = embedded(folder, half.open(), batch(4), precision="bf16")
    cosines_N = (found["clip_image"] * embedded(folder, opened, batch(4))["clip_image"]).sum(axis=1)
    assert (cosines_N > 0.99).all()
    assert (cosines_N < 1 - 1e-9).any()


def test_a_model_with_another_way_of_resizing_sees_the_picture_so(folder, opened, tmp_path):
    other = shutil.copytree(folder, tmp_path / "squash")
    config = json.loads((other / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["resize_mode"] = "squash"
    (other / "open_clip_config.json").write_text(json.dumps(config))
    squashed = embedded(other, ClipEmbed(model=str(other), batch_size=4).open(), batch(4))
    cropped = embedded(folder, opened, batch(4))
    assert not np.allclose(squashed["clip_image"], cropped["clip_image"], atol=1e-4)
    assert squashed["clip_text"].tobytes() == cropped["clip_text"].tobytes()


def test_the_digest_changes_with_weights_and_configuration_only(folder, tmp_path):
    def digest_with(change: str | None) -> str:
        copy = shutil.copytree(folder, tmp_path / str(change))
        if change:
            with open(copy / change, "ab") as stream:
                stream.write(b" ")
        return ClipEmbed(model=str(copy)).weights_digest()

    plain = digest_with(None)
    assert digest_with("README.md") == plain
    assert len({plain, digest_with("open_clip_config.json"), digest_with("open_clip_model.safetensors")}) == 3
    assert ClipEmbed(model="ViT-B-32", weights="openai").weights_digest() == "ViT-B-32/openai"


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"model": "ViT-B-23", "weights": "openai"}, "no open_clip model; did you mean ViT-B-32"),
        ({"model": "nothing like it", "weights": "x"}, "see open_clip.list_models()"),
        ({"model": "./no/such/folder"}, "is no folder with open_clip_config.json"),
        ({"model": "ViT-B-32"}, "name its weights too, as in `weights: openai`"),
    ],
)
def test_a_model_that_does_not_exist_is_refused_before_anything_runs(parameters, said):
    with pytest.raises(InputError) as raised:
        ClipEmbed(**parameters).check()
    assert said in str(raised.value)


def test_a_folder_that_is_no_model_is_refused_before_anything_runs(folder, tmp_path):
    ClipEmbed(model=str(folder)).check()
    with pytest.raises(InputError, match="a folder brings its own weights"):
        ClipEmbed(model=str(folder), weights="openai").check()
    for number, (text, said) in enumerate(
        [("{", "is not as save_for_hf writes it"), ("{}", "is not as"), ('{"model_cfg": {}}', "has no embed_dim")]
    ):
        broken = tmp_path / str(number)
        broken.mkdir()
        (broken / "open_clip_config.json").write_text(text)
        with pytest.raises(InputError, match=said):
            ClipEmbed(model=str(broken)).check()
    (broken / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG}))
    with pytest.raises(InputError, match="the folder holds no weights"):
        ClipEmbed(model=str(broken)).check()


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B/32", "ViT-L-14", "ViT-SO400M-14-SigLIP"])
def test_published_models_are_known_by_name(name):
    operator = ClipEmbed(model=name, weights="openai")
    operator.check()
    assert all(column.width in (512, 768, 1152) for column in operator.adds)


def test_weights_that_do_not_fit_are_a_sentence_when_the_model_is_opened(folder, tmp_path):
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / "open_clip_model.safetensors").write_bytes(b"no weights")
    with pytest.raises(RunError, match=r"the model .*broken cannot be loaded on cpu: "):
        ClipEmbed(model=str(broken), device="cpu").open()
    with pytest.raises(RunError, match=r"the model ViT-B-32 \(no-such-tag\) cannot be loaded"):
        ClipEmbed(model="ViT-B-32", weights="no-such-tag", device="cpu").open()


def test_published_weights_without_a_network_are_one_sentence_at_once():
    code = (
        "from curation.models.clip_model import ClipModel\n"
        "from curation.models.loaded_clip import LoadedClip\n"
        "from schemas.errors import RunError\n"
        "try:\n    LoadedClip(ClipModel('ViT-B-32', 'laion2b_s34b_b79k'), 'cpu', 'fp32')\n"
        "except RunError as error:\n    print(error)\n"
        "import logging; logging.warning('heard')"
    )
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": "/nonexistent"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | nowhere, capture_output=True, text=True, check=True, timeout=50
    )
    assert "(laion2b_s34b_b79k) cannot be loaded on cpu: " in done.stdout
    assert "without a network, give a folder" in done.stdout
    assert done.stderr == "WARNING:root:heard\n"


def test_published_weights_get_the_activation_that_they_were_trained_with(opened):
    from curation.models.loaded_clip import quick_gelu

    assert quick_gelu("ViT-B-32", "openai")
    assert not quick_gelu("ViT-B-32", "laion2b_s34b_b79k")
    assert not quick_gelu("local-dir:x", None)


def test_what_affects_a_result_is_declared():
    assert ClipEmbed.result_parameters() == ["batch_size", "precision"]  # weights_digest stands for the model
    assert ClipEmbed.captured
    assert ClipEmbed.resources.actor
    with pytest.raises(ValidationError):
        ClipEmbed(model="ViT-B-32", batch_size=0)


def test_a_model_is_the_same_wherever_its_folder_lies(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "elsewhere")
    asked = [ClipEmbed(model=str(one)).weights_digest() for one in (folder, tmp_path / "elsewhere")]
    assert asked[0] == asked[1]
    assert ClipEmbed(model="ViT-B-32", weights="openai").weights_digest() == "ViT-B-32/openai"


def test_checking_a_model_imports_neither_torch_nor_open_clip():
    code = (
        "import sys; from curation.operators.clip_embed import ClipEmbed\n"
        "o = ClipEmbed(model='ViT-B-32', weights='openai'); o.check(); o.adds; o.weights_digest()\n"
        "sys.exit(bool({'torch', 'open_clip'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_score_is_the_cosine_of_the_stored_numbers():
    found = scored([[1, 0], [3, 4], [-1, 0], [1, 1], [6e-8, 0]], [[1, 0], [4, 3], [1, 0], [1, 1], [6e-8, 0]])
    scores_N = found.values["clip_score"]
    assert scores_N.dtype == np.float32
    assert np.allclose(scores_N, [1, 0.96, -1, 1, 1], atol=1e-7)
    assert (np.abs(scores_N) <= 1).all()
    assert not found.failures


def test_a_zero_vector_has_no_score():
    found = scored([[0, 0], [1, 0]], [[1, 0], [1, 0]])
    assert list(found.failures) == [0]
    assert found.failures[0].status == "zero_vector"


def test_a_vector_that_is_not_finite_has_no_score():
    found = scored([[float("nan"), 0], [1, 0], [1, 0]], [[1, 0], [float("inf"), 0], [1, 0]])
    assert {row: failure.status for row, failure in found.failures.items()} == {0: "not_finite", 1: "not_finite"}


def test_vectors_of_two_models_have_no_cosine():
    with pytest.raises(InputError, match="clip_image has 2 numbers, clip_text has 3; read both from one model"):
        scored([[1, 0]], [[1, 0, 0]])
