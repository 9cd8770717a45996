"""Weights of parts: from local folders, from whole models, from our own contrastive run; the same numbers come out."""

from pathlib import Path

import pytest
import torch
from test_export import KINDS, WANTED
from test_export import built as contrastive
from tiny_vlm import (
    LLAMA,
    PARTS,
    QWEN2,
    SENTENCES,
    STAGE,
    built,
    conversation,
    picture,
    tokenizer_folder,
)

from schemas.errors import InputError
from schemas.generative import GenerativeSpec
from training.export import export_transformers
from training.generative.answer import answer, prompts
from training.generative.build import build, open_model
from training.generative.save import save_model
from training.model import save_model as save_contrastive

pytestmark = pytest.mark.usefixtures("one_thread")


def text_model(folder: Path, config: dict, tokens: int = 384) -> str:
    """A language model of random weights with its tokenizer, in a folder."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    kind = AutoModelForSeq2SeqLM if config["model_type"] == "t5" else AutoModelForCausalLM
    rest = {name: value for name, value in config.items() if name != "model_type"}
    torch.manual_seed(5)
    made = kind.from_config(AutoConfig.for_model(config["model_type"], **{"vocab_size": tokens, **rest}))
    with torch.no_grad():
        for weight in made.parameters():  # no gain stays one: a mix-up must show
            weight.add_(0.05 * torch.randn_like(weight))
    made.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer_folder()).save_pretrained(folder)
    return str(folder)


def text_logits(model, tokens_BT):
    with torch.no_grad():
        return model(input_ids=tokens_BT).logits


@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("llava", LLAMA), ("llava", QWEN2 | {"tie_word_embeddings": True}), ("internvl", QWEN2),
        ("idefics2", LLAMA | {"model_type": "mistral"}), ("idefics3", LLAMA | {"tie_word_embeddings": True}),
        ("perception_lm", LLAMA), ("llava_onevision", QWEN2), ("qwen2_vl", QWEN2 | {"hidden_size": 64}),
        ("qwen2_vl", QWEN2 | {"hidden_size": 64, "tie_word_embeddings": True}),
        ("qwen2_5_vl", QWEN2 | {"hidden_size": 64}),
        ("qwen3_vl", QWEN2 | {"model_type": "qwen3", "head_dim": 16}),
        ("mllama", LLAMA | {"num_hidden_layers": 5}), ("mllama", LLAMA | {"tie_word_embeddings": True}),
        ("fuyu", PARTS["fuyu"]["llm"]["config"]),
    ],
)  # fmt: skip
def test_a_language_model_says_of_text_what_its_own_weights_say(tmp_path, family, config):
    from transformers import AutoModelForCausalLM

    folder = text_model(tmp_path, config)
    one = built(family, llm={"weights": folder}, tokenizer=None)
    if family != "mllama":  # which cannot tie
        output, inside = one.model.get_output_embeddings().weight, one.model.get_input_embeddings().weight
        assert (output is inside) == config.get("tie_word_embeddings", False)
    tokens_BT = torch.tensor([one.processor.tokenizer(text)["input_ids"][:8] for text in SENTENCES[:2]])
    wanted = text_logits(AutoModelForCausalLM.from_pretrained(folder).eval(), tokens_BT)
    assert len(one.processor.tokenizer) > wanted.shape[-1]
    torch.testing.assert_close(text_logits(one.model, tokens_BT)[..., : wanted.shape[-1]], wanted, atol=1e-5, rtol=1e-5)


def test_llama_3_2_vision_has_a_layer_of_cross_attention_after_three_and_then_after_every_four(tmp_path):
    one = built("mllama", llm={"weights": text_model(tmp_path, LLAMA | {"num_hidden_layers": 8})}, tokenizer=None)
    assert one.model.config.text_config.cross_attention_layers == [3, 8]
    assert one.model.config.text_config.num_hidden_layers == 10
    assert all(float(p.detach()) == 0 for name, p in one.model.named_parameters() if name.endswith("_gate"))


def test_the_rows_of_new_tokens_are_near_the_mean_of_the_others(tmp_path):
    one = built("llava", llm={"weights": text_model(tmp_path, LLAMA)}, tokenizer=None)
    rows_VD = one.model.get_input_embeddings().weight.detach()
    assert len(rows_VD) == len(one.processor.tokenizer) == 385
    assert float((rows_VD[384:] - rows_VD[:384].mean(0)).norm()) < float((rows_VD[0] - rows_VD[:384].mean(0)).norm())


@pytest.mark.parametrize(
    ("kind", "family"),
    [("clip", "llava"), ("clip_quick_gelu", "llava_next"), ("siglip", "llava"), ("siglip", "idefics3")],
)
def test_an_encoder_of_our_own_contrastive_run_sees_what_it_saw_there(tmp_path, kind, family):
    from transformers import AutoModel

    tower = contrastive(tmp_path, WANTED[kind])
    save_contrastive(tower, tmp_path / "run" / "model")
    export_transformers(tower, tmp_path / "exported")
    connector = {"vision_feature_layer": -1} if family != "idefics3" else {}
    one = built(family, encoder={"weights": str(tmp_path / "run")}, connector=connector)
    pixels_BCHW = torch.randn(2, 3, tower.side_px, tower.side_px)
    vision = AutoModel.from_pretrained(tmp_path / "exported").eval().vision_model
    inside = one.model.get_submodule(one.family.roles["encoder"][0])
    with torch.no_grad():
        wanted = vision(pixels_BCHW).last_hidden_state
        found = inside(pixel_values=pixels_BCHW).last_hidden_state
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    theirs = built(family, encoder={"weights": str(tmp_path / "exported")}, connector=connector)
    assert all(torch.equal(theirs.model.state_dict()[key], value) for key, value in one.model.state_dict().items())
    looks = [list(each.processor.image_processor.image_mean) for each in (one, theirs)]
    assert looks[0] == looks[1]
    assert looks[0] == list(tower.config["preprocess_cfg"]["mean"])
    assert answer(one, [picture(0)], "What?", max_new_tokens=2) is not None


@pytest.mark.parametrize("kind", ["eva02", "dinov2", "siglip"])
def test_a_tower_of_timm_that_we_trained_is_the_encoder_of_perception_lm(tmp_path, kind):
    tower = contrastive(tmp_path, KINDS[kind])
    save_contrastive(tower, tmp_path / "run" / "model")
    one = built("perception_lm", encoder={"weights": str(tmp_path / "run")})
    pixels_BCHW = torch.randn(2, 3, tower.side_px, tower.side_px)
    with torch.no_grad():
        wanted = tower.network.visual.trunk.forward_features(pixels_BCHW)
        found = one.model.model.vision_tower(pixels_BCHW).last_hidden_state
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert answer(one, [picture(0)], "What?", max_new_tokens=2) is not None


def test_an_encoder_that_transformers_has_not_is_refused(tmp_path):
    save_contrastive(contrastive(tmp_path, KINDS["resnet"]), tmp_path / "model")
    with pytest.raises(
        InputError, match=r"encoder.weights .*: transformers has no CLIP with a ResNet; train it as a ViT"
    ):
        built("llava", encoder={"weights": str(tmp_path)})


@pytest.mark.parametrize("family", ["llava", "blip2", "qwen2_vl", "mllama", "perception_lm", "internvl"])
def test_parts_of_a_whole_model_can_be_taken_out_of_it(tmp_path, family):
    one = built(family, seed=7)
    save_model(one, tmp_path / "whole")
    again = built(family, encoder={"weights": str(tmp_path / "whole")})
    path = one.family.roles["encoder"][0]
    wanted = one.model.get_submodule(path).state_dict()
    found = again.model.get_submodule(path).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


def test_a_whole_model_goes_on_with_its_own_processor(tmp_path):
    one = built("qwen2_vl", seed=3)
    save_model(one, tmp_path / "whole")
    fields = {
        "name": "t",
        "task": "generative",
        "family": "qwen2_vl",
        "stages": [STAGE],
        "weights": str(tmp_path / "whole"),
    }
    again = build(GenerativeSpec.model_validate(fields))
    assert all(torch.equal(again.model.state_dict()[name], tensor) for name, tensor in one.model.state_dict().items())
    assert again.processor.chat_template == one.processor.chat_template
    with pytest.raises(InputError, match="is a qwen2_vl, but the specification says llava"):
        build(GenerativeSpec.model_validate(fields | {"family": "llava"}))


def test_weights_that_do_not_fit_are_refused_with_both_shapes(tmp_path):
    folder = text_model(tmp_path / "llm", LLAMA)
    with pytest.raises(InputError, match=r"has the shape \(64, 32\), the model's has \(96, 32\)"):
        built("llava", llm={"weights": folder, "config": {"intermediate_size": 96}}, tokenizer=None)
    with pytest.raises(InputError, match="is a llama; the family qwen2_vl takes as llm qwen2_vl_text or qwen2"):
        built("qwen2_vl", llm={"weights": folder})
    with pytest.raises(InputError, match=r"encoder\.weights /nowhere: "):
        built("llava", encoder={"weights": "/nowhere"})


@pytest.mark.parametrize("name", ["blip2", "blip2_t5"])
def test_blip_2_speaks_with_the_language_model_that_it_was_given(tmp_path, name):
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    config = PARTS[name]["llm"]["config"]
    folder = text_model(tmp_path, config)
    one = built(name, llm={"weights": folder}, tokenizer=None)
    kind = AutoModelForSeq2SeqLM if config["model_type"] == "t5" else AutoModelForCausalLM
    tokens_BT = torch.tensor([one.processor.tokenizer(text)["input_ids"][:8] for text in SENTENCES[:2]])
    more = {"decoder_input_ids": tokens_BT} if config["model_type"] == "t5" else {}
    with torch.no_grad():
        wanted = kind.from_pretrained(folder).eval()(input_ids=tokens_BT, **more).logits
        found = one.model.language_model(input_ids=tokens_BT, **more).logits
    torch.testing.assert_close(found[..., : wanted.shape[-1]], wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "architecture", ["eva02_tiny_patch14_224", "vit_small_patch14_dinov2", "vit_base_patch16_siglip_224"]
)
def test_any_tower_of_timm_that_cuts_patches_is_an_encoder(tmp_path, architecture):
    from transformers import TimmWrapperConfig, TimmWrapperModel

    arguments = {"depth": 1, "img_size": 56 if "14" in architecture else 64}
    config = {"architecture": architecture, "model_args": arguments}
    torch.manual_seed(0)
    tower = TimmWrapperModel(TimmWrapperConfig(**config)).eval()
    tower.save_pretrained(tmp_path)
    one = built("perception_lm", encoder={"weights": str(tmp_path)})
    pixels_BCHW = torch.randn(2, 3, arguments["img_size"], arguments["img_size"])
    with torch.no_grad():
        wanted = tower(pixels_BCHW).last_hidden_state
        found = one.model.model.vision_tower(pixels_BCHW).last_hidden_state
    assert torch.equal(found, wanted)
    assert one.processor.image_processor.tile_size == arguments["img_size"]
    assert answer(one, [picture(0), picture(1, 90, 30)], "What?", max_new_tokens=2) is not None


def test_a_whole_model_sees_pictures_as_it_is_told_to(tmp_path):
    whole = {"name": "t", "task": "generative", "stages": [STAGE]}
    for family in ("qwen2_vl", "llava_next", "mllama", "fuyu"):
        save_model(built(family), tmp_path / family)

    def tiles_and_tokens(family: str, image: dict) -> tuple[int, int]:
        fields = whole | {"family": family, "weights": str(tmp_path / family), "image": image}
        one = build(GenerativeSpec.model_validate(fields))
        inputs = prompts(one, [conversation("What?", None, [picture(0, 128, 64)])])
        assert torch.isfinite(one.model(**inputs).logits).all()
        tokens = int((inputs["input_ids"] == one.processor.image_token_id).sum())
        return one.family.count_tiles(inputs), tokens

    assert tiles_and_tokens("qwen2_vl", {}) == (1, 32)
    assert tiles_and_tokens("qwen2_vl", {"max_pixels": 2048}) == (1, 8)
    assert tiles_and_tokens("llava_next", {})[0] == 3
    assert tiles_and_tokens("llava_next", {"max_tiles": 8})[0] == 9
    assert tiles_and_tokens("fuyu", {"side_px": 32})[0] == 1
    with pytest.raises(InputError, match=r"image\.side_px is 48, but the model's own side is 32"):
        tiles_and_tokens("fuyu", {"side_px": 48})
    with pytest.raises(InputError, match=r"image\.max_tiles is 4, but the model's max_num_tiles is 2"):
        tiles_and_tokens("mllama", {"max_tiles": 4})


def test_a_model_that_is_saved_again_is_the_new_one_alone(tmp_path):
    save_model(built("llava", seed=1), tmp_path / "model")
    (tmp_path / "model" / "left_over").touch()
    one = built("llava", seed=2)
    save_model(one, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert not (tmp_path / "model" / "left_over").exists()
    again = open_model(tmp_path / "model").model.state_dict()
    assert all(torch.equal(again[key], tensor) for key, tensor in one.model.state_dict().items())


def test_a_template_that_marks_no_answer_serves_to_ask_and_is_replaced_to_train(tmp_path):
    one = built("llava")
    marked = one.processor.chat_template
    part = "{{ '<image>' if part['type'] == 'image' else part['text'] }}"
    said = "{% for part in message['content'] %}" + part + "{% endfor %}"
    one.processor.chat_template = "{% for message in messages %}" + said + "{{ eos_token }}{% endfor %}"
    save_model(one, tmp_path / "model")
    assert open_model(tmp_path / "model").processor.chat_template == one.processor.chat_template
    fields = {"name": "t", "task": "generative", "family": "llava", "stages": [STAGE]}
    again = build(GenerativeSpec.model_validate(fields | {"weights": str(tmp_path / "model")}))
    assert again.processor.chat_template == marked
    assert "does not mark answers; the default of llava is taken" in again.note
    (tmp_path / "model" / "chat_template.jinja").unlink()
    assert open_model(tmp_path / "model").processor.chat_template == marked
