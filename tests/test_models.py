"""Models of every kind open_clip has: built small and at random, saved, loaded; locked towers; shorter inputs."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_cases import MODEL, spec_of

from curation.models.clip_model import ClipModel
from curation.models.loaded_clip import LoadedClip
from schemas.errors import InputError
from schemas.towers import Lock, Phase, checked_phases, phase_at
from training.lengths import (
    mask_patches,
    require_phases,
    resized_positions,
    shorter_captions,
    shorter_pictures,
)
from training.locks import lock_towers
from training.model import build_model, load_model, save_model
from training.model_config import model_config

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
VIT = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16}
SIGLIP_TEXT = {**TEXT, "no_causal_mask": True, "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6}}
TIMM = {"timm_model_pretrained": False, "timm_proj": "linear"}
KINDS = {
    "vit": {"embed_dim": 24, "vision_cfg": VIT, "text_cfg": TEXT},
    "quick_gelu": {"embed_dim": 24, "quick_gelu": True, "vision_cfg": VIT, "text_cfg": TEXT},
    "resnet": json.loads(Path(MODEL).read_text()),
    "siglip": {
        "embed_dim": 64, "custom_text": True, "init_logit_bias": -10,
        "vision_cfg": {"image_size": 32, "timm_model_name": "tiny_siglip", "timm_pool": "map", "timm_proj": "none"},
        "text_cfg": {**SIGLIP_TEXT, "width": 64},
    },
    "siglip2": {
        "embed_dim": 64, "custom_text": True, "init_logit_bias": -10,
        "vision_cfg": {"image_size": 32, "timm_model_name": "tiny_siglip", "timm_pool": "map", "timm_proj": "none"},
        "text_cfg": {**SIGLIP_TEXT, "width": 64, "act_kwargs": {"approximate": "tanh"}},
    },
    "eva02": {
        "embed_dim": 24, "custom_text": True, "text_cfg": TEXT,
        "vision_cfg": {**TIMM, "image_size": 28, "timm_model_name": "eva02_tiny_patch14_224", "timm_pool": "token"},
    },
    "dinov2": {
        "embed_dim": 24, "custom_text": True, "text_cfg": TEXT,
        "vision_cfg": {**TIMM, "image_size": 28, "timm_model_name": "vit_small_patch14_dinov2", "timm_pool": "token"},
    },
    "coca": {
        "embed_dim": 24,
        "vision_cfg": {**VIT, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    },
}  # fmt: skip


pytestmark = pytest.mark.usefixtures("one_thread")


def built(folder: Path, kind: str, **changes):
    path = folder / f"{kind}.json"
    path.write_text(json.dumps(KINDS[kind]))
    torch.manual_seed(0)
    return build_model(spec_of(str(path), **changes), "cpu")


def pixels(model, count: int = 2, side: int | None = None) -> torch.Tensor:
    side = side or model.side_px
    draw = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, side, side), generator=draw, dtype=torch.uint8)


def vectors(model) -> tuple[torch.Tensor, torch.Tensor]:
    model.network.eval()
    with torch.inference_mode():
        return model.embed_pictures(pixels(model)), model.embed_captions(model.tokenize(["a cat", "two dogs"]))


def vectors_of_clip_embed(folder: Path, model) -> tuple[torch.Tensor, torch.Tensor]:
    """What curation makes of the same pictures and captions by a model that was trained here."""
    loaded = LoadedClip(ClipModel(str(folder), None), "cpu", "fp32")
    shown = [np.asarray(one) for one in pixels(model).permute(0, 2, 3, 1)]
    found = loaded.pictures(shown, 2)(), loaded.captions(["a cat", "two dogs"], 2)()
    return torch.from_numpy(found[0]), torch.from_numpy(found[1])


# ---------------------------------------------------------------- every kind


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_every_kind_is_built_saved_and_loaded_with_the_same_vectors(tmp_path, kind):
    model = built(tmp_path, kind)
    image_BD, text_BD = vectors(model)
    assert image_BD.shape == text_BD.shape == (2, KINDS[kind]["embed_dim"])
    assert torch.isfinite(image_BD).all()
    assert not torch.allclose(text_BD[0], text_BD[1])
    save_model(model, tmp_path / "model")
    again = vectors(load_model(tmp_path / "model", "cpu"))
    assert torch.equal(again[0], image_BD)
    assert torch.equal(again[1], text_BD)
    stored = vectors_of_clip_embed(tmp_path / "model", model)
    torch.testing.assert_close(stored, (image_BD, text_BD), atol=1e-5, rtol=1e-5)


def test_every_configuration_that_open_clip_ships_is_taken():
    import open_clip

    for name in open_clip.list_models():
        taken = model_config(name)["model_cfg"]
        assert {"embed_dim", "vision_cfg", "text_cfg"} <= set(taken)
        assert "multimodal_cfg" not in taken


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("eva02", "dinov2", "siglip", "siglip2")])
def test_open_clip_itself_loads_what_was_saved(tmp_path, kind):
    import open_clip

    model = built(tmp_path, kind)
    save_model(model, tmp_path / "model")
    theirs = open_clip.create_model(f"local-dir:{tmp_path / 'model'}", require_pretrained=True).eval()
    tokens_BT = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'model'}")(["a cat", "two dogs"])
    with torch.inference_mode():
        text_BD = theirs.encode_text(tokens_BT, normalize=True)
    torch.testing.assert_close(vectors(model)[1], text_BD, atol=1e-5, rtol=1e-5)


def tiny_bert(folder: Path) -> Path:
    """A text tower of Hugging Face and its tokenizer, as a local folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, PreTrainedTokenizerFast

    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "a", "cat", "two", "dogs"]
    inner = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    PreTrainedTokenizerFast(tokenizer_object=inner, **special).save_pretrained(folder)
    BertConfig(
        vocab_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=16, pad_token_id=0,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def test_a_text_tower_of_hugging_face_is_built_from_a_folder_and_loaded_when_that_is_gone(tmp_path, monkeypatch):
    bert = tiny_bert(tmp_path / "bert")
    text = {"hf_model_name": str(bert), "hf_tokenizer_name": str(bert), "context_length": 8}
    text |= {"hf_pooler_type": "mean_pooler", "hf_proj_type": "linear"}
    monkeypatch.setitem(KINDS, "bert", {"embed_dim": 24, "vision_cfg": VIT, "text_cfg": text})
    model = built(tmp_path, "bert")
    before = vectors(model)
    save_model(model, tmp_path / "model")
    bert.rename(tmp_path / "elsewhere")
    after = vectors(load_model(tmp_path / "model", "cpu"))
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    stored = vectors_of_clip_embed(tmp_path / "model", model)
    torch.testing.assert_close(stored, before, atol=1e-5, rtol=1e-5)


def test_weights_of_another_shape_are_refused_by_the_name_of_the_tensor(tmp_path, monkeypatch):
    save_model(built(tmp_path, "vit"), tmp_path / "model")
    monkeypatch.setitem(KINDS, "wide", {**KINDS["vit"], "embed_dim": 25})
    with pytest.raises(
        InputError, match=r"tensor text_projection has the shape \(32, 24\), the model's has \(32, 25\)"
    ):
        built(tmp_path, "wide", pretrained=str(tmp_path / "model"))
    monkeypatch.setitem(KINDS, "deep", {**KINDS["vit"], "text_cfg": {**TEXT, "layers": 3}})
    with pytest.raises(InputError, match=r"have no tensor transformer\.resblocks\.2\.ln_1\.weight"):
        built(tmp_path, "deep", pretrained=str(tmp_path / "model"))


def test_weights_trained_on_smaller_pictures_and_shorter_captions_begin_a_longer_training(tmp_path, monkeypatch):
    save_model(built(tmp_path, "vit"), tmp_path / "model")
    monkeypatch.setitem(KINDS, "long", {**KINDS["vit"], "vision_cfg": {**VIT, "image_size": 48}})
    longer = built(tmp_path, "long", pretrained=str(tmp_path / "model"))
    assert longer.side_px == 48
    assert longer.network.visual.positional_embedding.shape == (37, 32)
    assert torch.isfinite(vectors(longer)[0]).all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"embed_dim": 4}', "lacks vision_cfg, text_cfg"),
        ("[1]", "lacks embed_dim"),
        ("{", "cannot be read as JSON"),
        (json.dumps({**KINDS["vit"], "text_cfg": {**TEXT, "hf_tokenizer_name": "x"}}), "say `pool_type: eos`"),
        (json.dumps({**KINDS["dinov2"], "vision_cfg": {"timm_model_name": "vit_none"}}), "cannot be loaded"),
    ],
)
def test_a_configuration_that_makes_no_model_is_a_sentence(tmp_path, text, words):
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(InputError, match=words):
        build_model(spec_of(str(tmp_path / "m.json")), "cpu")


# ---------------------------------------------------------------- locked towers


def trained(network) -> set[str]:
    return {name for name, weight in network.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize("kind", ["vit", "resnet", "siglip", "dinov2"])
def test_a_locked_picture_tower_keeps_its_weights_and_statistics(tmp_path, kind):
    model = built(tmp_path, kind)
    lock_towers(model.network, Lock(image="all"))
    names = trained(model.network)
    assert {name for name in names if name.startswith("visual.")} <= {"visual.head.proj.weight"}
    assert any(name.startswith(("transformer.", "text.transformer.")) for name in names)
    before = {name: value.clone() for name, value in model.network.visual.state_dict().items()}
    model.network.train()
    loss = -(model.embed_pictures(pixels(model)) * model.embed_captions(model.tokenize(["a", "b"]))).sum()
    loss.backward()
    torch.optim.SGD([p for p in model.network.parameters() if p.requires_grad], lr=0.1).step()
    after = model.network.visual.state_dict()
    assert [name for name in before if not torch.equal(before[name], after[name])] in ([], ["head.proj.weight"])
    assert any(name.startswith("visual.") for name in names) == (kind == "dinov2")


def test_groups_at_the_end_of_a_tower_may_train_on(tmp_path):
    model = built(tmp_path, "vit")
    lock_towers(model.network, Lock(image=2, text=1))
    names = trained(model.network)
    assert {name.split(".")[1] for name in names if name.startswith("visual.")} == {"proj", "transformer", "ln_post"}
    assert "visual.transformer.resblocks.0.ln_1.weight" not in names
    assert [name for name in names if not name.startswith(("visual.", "logit"))] == ["text_projection"]


def test_a_lock_that_a_tower_does_not_have_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"lock: image: 1: this tower cannot be locked so .*; say `all`"):
        lock_towers(built(tmp_path, "resnet").network, Lock(image=1))
    with pytest.raises(ValueError, match="image"):
        Lock(image=0)


# ---------------------------------------------------------------- shorter inputs


def test_a_phase_lasts_until_its_share_of_the_steps():
    phases = checked_phases([Phase(until=0.9, image_px=16, patch_dropout=0.5), Phase(until=1)])
    at = [phase_at(phases, step, 20) for step in range(21)]
    assert [phase.image_px for phase in at] == [16] * 18 + [None] * 3
    assert phase_at((), 3, 10) == Phase(until=1)
    for wrong in ([Phase(until=0.5)], [Phase(until=1), Phase(until=1)], [Phase(until=0.9), Phase(until=0.4)]):
        with pytest.raises(ValueError, match="the last is 1"):
            checked_phases(wrong)


@pytest.mark.parametrize("kind", ["vit", "siglip", "dinov2"])
def test_smaller_pictures_meet_resized_positions_and_train_the_same_weights(tmp_path, kind):
    model = built(tmp_path, kind)
    small = model.side_px // 2
    require_phases(model.network, [Phase(until=0.5, image_px=small), Phase(until=1)])
    model.embed_pictures(pixels(model, side=small)).sum().backward()
    named = model.network.visual.named_parameters()
    positions = [p for name, p in named if name in ("positional_embedding", "trunk.pos_embed")]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in positions)
    assert len(positions) == 1


def test_a_whole_picture_meets_the_positions_as_they_are(tmp_path):
    import open_clip

    model = built(tmp_path, "vit")
    floats_BCHW = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        theirs = open_clip.transformer.VisionTransformer._embeds(model.network.visual, floats_BCHW)
        ours = model.network.visual._embeds(floats_BCHW)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)  # a product sums in another order than a convolution
    positions_ND = torch.randn(17, 3)
    again_ND = resized_positions(positions_ND.repeat(1, 1), (4, 4), (4, 4))
    assert again_ND is not positions_ND
    assert torch.equal(again_ND, positions_ND)
    flat_ND = torch.ones(17, 3)
    torch.testing.assert_close(resized_positions(flat_ND, (4, 4), (2, 2)), torch.ones(5, 3))


@pytest.mark.parametrize("kind", ["vit", "siglip", "coca"])
def test_captions_of_fewer_tokens_are_embedded(tmp_path, kind):
    model = built(tmp_path, kind)
    tokens_BT = model.tokenize(["a cat", "two dogs"])
    model.network.eval()
    with torch.inference_mode():
        whole_BD, short_BD = model.embed_captions(tokens_BT), model.embed_captions(tokens_BT[:, :8])
    assert short_BD.shape == whole_BD.shape
    if kind == "vit":  # causal, and pooled at the end token: what comes after it does not count
        torch.testing.assert_close(short_BD, whole_BD, atol=1e-6, rtol=1e-6)


def test_open_clips_own_text_tower_gives_the_same_for_whole_captions(tmp_path):
    import open_clip

    model = built(tmp_path, "vit")
    tokens_BT = model.tokenize(["a cat", "two dogs"])
    with torch.inference_mode():
        assert torch.equal(model.network.encode_text(tokens_BT), open_clip.CLIP.encode_text(model.network, tokens_BT))


def test_a_caption_that_is_cut_keeps_its_end_token():
    tokens_BT = torch.tensor([[7, 1, 2, 3, 4, 9], [7, 1, 9, 0, 0, 0]])
    assert shorter_captions(tokens_BT, 4).tolist() == [[7, 1, 2, 9], [7, 1, 9, 0]]
    assert shorter_captions(tokens_BT, 6).tolist() == tokens_BT.tolist()
    assert shorter_captions(tokens_BT, 4, "last").tolist() == [[7, 1, 2, 3], [7, 1, 9, 0]]
    assert shorter_captions(tokens_BT, 4, "eos", 9).tolist() == [[7, 1, 2, 9], [7, 1, 9, 0]]


def test_pictures_are_made_smaller_and_stay_bytes():
    flat_BCHW = torch.full((1, 3, 32, 32), 200, dtype=torch.uint8)
    assert torch.equal(shorter_pictures(flat_BCHW, 16), torch.full((1, 3, 16, 16), 200, dtype=torch.uint8))
    assert shorter_pictures(flat_BCHW, 32) is flat_BCHW


@pytest.mark.parametrize("kind", ["vit", "siglip", "dinov2", "eva02"])
def test_masked_patches_change_what_trains_and_nothing_that_is_scored(tmp_path, kind):
    model = built(tmp_path, kind)
    whole_BD = vectors(model)[0]
    mask_patches(model.network, 0.5)
    assert torch.equal(vectors(model)[0], whole_BD)
    model.network.train()
    with torch.no_grad():
        first_BD, second_BD = (model.embed_pictures(pixels(model, 8)) for _ in range(2))
        assert not torch.allclose(first_BD, second_BD)
        mask_patches(model.network, 0.0)
        first_BD, second_BD = (model.embed_pictures(pixels(model, 8)) for _ in range(2))
    assert torch.equal(first_BD, second_BD)


@pytest.mark.parametrize(
    ("kind", "phase", "words"),
    [
        ("resnet", {"image_px": 16}, "this picture tower takes 32 pixels alone"),
        ("resnet", {"patch_dropout": 0.5}, "has no patches to leave out"),
        ("eva02", {"image_px": 14}, "takes 28 pixels alone"),
        ("vit", {"image_px": 12}, "12 is no multiple of 8, a patch, up to 32 pixels"),
        ("vit", {"image_px": 64}, "64 is no multiple of 8, a patch, up to 32 pixels"),
    ],
)
def test_a_phase_that_a_tower_cannot_take_is_refused(tmp_path, kind, phase, words):
    with pytest.raises(InputError, match=words):
        require_phases(built(tmp_path, kind).network, [Phase(until=1, **phase)])


def test_a_copy_of_a_network_uses_its_own_weights(tmp_path):
    model = built(tmp_path, "vit")
    tokens_BT, floats_BCHW = model.tokenize(["a cat"]), torch.randn(1, 3, 32, 32)
    model.network.eval()
    copied = copy.deepcopy(model.network)  # as an average of weights is made
    with torch.inference_mode():
        before = copied.encode_text(tokens_BT), copied.encode_image(floats_BCHW)
        for weight in model.network.parameters():
            weight.zero_()
        after = copied.encode_text(tokens_BT), copied.encode_image(floats_BCHW)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert float(before[0].abs().sum()) > 0
