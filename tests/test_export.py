"""Export to transformers: the same logits after the round trip, the same inputs from the processor, honest refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_cases import spec_of
from test_models import KINDS, SIGLIP_TEXT, TEXT, VIT, pixels

from schemas.errors import InputError, RunError
from schemas.picture_transform import square
from training.export import export_transformers
from training.model import build_model, load_model, save_model

CAPTIONS = ["a photo of a cat", "two dogs!", "", "Élan vital, it's 3.5 — naïve  spaces"]
WANTED = {
    "clip": {"embed_dim": 24, "vision_cfg": VIT, "text_cfg": TEXT},
    "clip_quick_gelu": {"embed_dim": 24, "quick_gelu": True, "vision_cfg": VIT, "text_cfg": TEXT},
    "clip_custom_text": {"embed_dim": 24, "custom_text": True, "vision_cfg": VIT, "text_cfg": {**TEXT, "heads": 4}},
    "siglip": KINDS["siglip"],
    "siglip2": KINDS["siglip2"],
}
CLASSES = {"clip": "CLIPModel", "siglip": "SiglipModel"}


pytestmark = pytest.mark.usefixtures("one_thread")


def built(folder: Path, config: dict, **changes):
    (folder / "m.json").write_text(json.dumps(config))
    torch.manual_seed(3)
    model = build_model(spec_of(str(folder / "m.json"), **changes), "cpu")
    with torch.no_grad():
        for weight in model.network.parameters():  # no bias stays zero, no gain one: a mix-up must show
            weight.add_(0.05 * torch.randn_like(weight))
    model.network.eval()
    return model


@pytest.mark.parametrize("kind", WANTED)
def test_logits_are_the_same_after_the_round_trip(tmp_path, kind):
    from transformers import AutoModel

    model = built(tmp_path, WANTED[kind])
    save_model(model, tmp_path / "model")
    export_transformers(load_model(tmp_path / "model", "cpu"), tmp_path / "exported")
    theirs = AutoModel.from_pretrained(tmp_path / "exported").eval()
    assert type(theirs).__name__ == CLASSES[kind.split("_")[0].rstrip("2")]
    tokens_BT = model.tokenize(CAPTIONS)
    with torch.inference_mode():
        logits = (
            model.network.logit_scale.exp() * model.embed_pictures(pixels(model)) @ model.embed_captions(tokens_BT).T
        )
        logits = logits + (0 if model.network.logit_bias is None else model.network.logit_bias)
        found = theirs(input_ids=tokens_BT, pixel_values=model.normalised(pixels(model)))
    torch.testing.assert_close(found.logits_per_image, logits, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(found.image_embeds, model.embed_pictures(pixels(model)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.text_embeds, model.embed_captions(tokens_BT), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_the_processor_gives_the_pixels_and_tokens_of_training(tmp_path, kind):
    from PIL import Image
    from transformers import AutoProcessor

    model = built(tmp_path, WANTED[kind])
    export_transformers(model, tmp_path / "exported")
    processor = AutoProcessor.from_pretrained(tmp_path / "exported")
    picture = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    given = processor(
        text=CAPTIONS, images=Image.fromarray(picture), padding="max_length", truncation=True, return_tensors="pt"
    )
    ours_BCHW = model.normalised(torch.from_numpy(square(picture, model.side_px).transpose(2, 0, 1)[None].copy()))
    torch.testing.assert_close(given["pixel_values"], ours_BCHW, atol=0.03, rtol=0)  # one step of a byte
    tokens_BT = model.tokenize(CAPTIONS)
    if kind == "siglip":
        assert torch.equal(given["input_ids"][:1], tokens_BT[:1])
        return
    end = int(tokens_BT.max())
    for theirs, mine in zip(given["input_ids"].tolist(), tokens_BT.tolist(), strict=True):
        assert theirs[: theirs.index(end) + 1] == mine[: mine.index(end) + 1]


@pytest.mark.parametrize(
    ("config", "changes", "words"),
    [
        (KINDS["dinov2"], {}, "no CLIP or SigLIP with the tower vit_small_patch14_dinov2"),
        (KINDS["resnet"], {}, "no CLIP with a ResNet"),
        (KINDS["coca"], {}, "cannot express vision_cfg.attentional_pool: True"),
        (KINDS["vit"], {"loss": "siglip"}, "CLIPModel has no bias of logits"),
        ({**KINDS["vit"], "text_cfg": SIGLIP_TEXT}, {}, "cannot express text_cfg.no_causal_mask: True"),
        ({**KINDS["vit"], "vision_cfg": {**VIT, "qk_norm": True}}, {}, "cannot express vision_cfg.qk_norm: True"),
        ({**KINDS["siglip"], "text_cfg": {**TEXT, "width": 64}}, {}, "cannot express text_cfg.no_causal_mask: False"),
    ],
)
def test_what_transformers_cannot_express_is_refused_before_anything_is_written(tmp_path, config, changes, words):
    with pytest.raises(InputError, match=words):
        export_transformers(built(tmp_path, config, **changes), tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_an_export_that_gives_other_vectors_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr("training.export_weights._act", lambda *_: "relu")
    with pytest.raises(RunError, match="gives other vectors than ours"):
        export_transformers(built(tmp_path, WANTED["clip"]), tmp_path / "exported")
    assert not (tmp_path / "exported").exists()
