"""Parts of a model: weights from local folders and from our own contrastive run, freezing, rates, refusals."""

import json
import random
from pathlib import Path

import pytest
import torch
from test_export import KINDS, WANTED
from test_export import built as contrastive
from test_families import batch_of, loss_of
from tiny_vlm import (
    CLIP,
    LLAMA,
    PARTS,
    QWEN2,
    SENTENCES,
    SIGLIP,
    STAGE,
    VISION,
    built,
    picture,
    spec_of,
    tokenizer_folder,
)

from schemas.errors import InputError, SpecError
from schemas.generative import GenerativeSpec, Stage
from schemas.reading import read_yaml
from training.export import export_transformers
from training.generative.answer import answer
from training.generative.build import build
from training.generative.families import FAMILIES, family_named
from training.generative.parts import checkpoint_activations, freeze, learning_role, parameter_groups, prepare, told
from training.generative.save import save_model
from training.generative.stages import require_stages
from training.model import save_model as save_contrastive

pytestmark = pytest.mark.usefixtures("one_thread")
PRESETS = sorted((Path(__file__).parent.parent / "pipelines" / "training" / "presets").glob("*.yaml"))


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
    tokens_BT = torch.tensor([one.processor.tokenizer(text)["input_ids"][:8] for text in SENTENCES[:2]])
    wanted = text_logits(AutoModelForCausalLM.from_pretrained(folder).eval(), tokens_BT)
    assert len(one.processor.tokenizer) > wanted.shape[-1]
    torch.testing.assert_close(text_logits(one.model, tokens_BT)[..., : wanted.shape[-1]], wanted, atol=1e-5, rtol=1e-5)


def test_llama_3_2_vision_has_a_layer_of_cross_attention_after_three_and_then_after_every_four(tmp_path):
    one = built("mllama", llm={"weights": text_model(tmp_path, LLAMA | {"num_hidden_layers": 8})}, tokenizer=None)
    assert one.model.config.text_config.cross_attention_layers == [3, 8]
    assert one.model.config.text_config.num_hidden_layers == 10
    assert all(float(p) == 0 for name, p in one.model.named_parameters() if name.endswith("_gate"))


def test_the_rows_of_new_tokens_are_near_the_mean_of_the_others(tmp_path):
    one = built("llava", llm={"weights": text_model(tmp_path, LLAMA)}, tokenizer=None)
    rows_VD = one.model.get_input_embeddings().weight
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
    assert list(one.processor.image_processor.image_mean) == list(tower.config["preprocess_cfg"]["mean"])
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


def test_the_seed_decides_new_weights_and_nothing_else_does():
    torch.manual_seed(1)
    first, drawn = built("llava", seed=3).model.state_dict(), torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(1))  # nobody else's numbers change
    again, other = built("llava", seed=3).model.state_dict(), built("llava", seed=4).model.state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in first.items())
    assert any(not torch.equal(other[name], tensor) for name, tensor in first.items())


def test_a_model_without_memory_can_be_counted():
    one = build(spec_of("llava"), meta=True)
    assert all(p.is_meta for p in one.model.parameters())
    assert sum(p.numel() for p in one.model.parameters()) == sum(p.numel() for p in built("llava").model.parameters())


@pytest.mark.parametrize("name", [name for name in PARTS if name != "smolvlm"])
def test_what_is_frozen_stays_bitwise_and_what_learns_changes(name):
    for part in ("encoder", "connector", "llm"):
        one = built(name)
        if part not in one.family.roles or part in one.family.frozen:
            continue
        if name == "mllama":  # whose gates let nothing through at the start
            for key, weight in one.model.named_parameters():
                if key.endswith("_gate"):
                    weight.data.fill_(0.5)
        freeze(one.model, one.family, [part])
        before = {key: tensor.clone() for key, tensor in one.model.state_dict().items()}
        inputs, labels_BT = batch_of(one)
        optimizer = torch.optim.AdamW([p for p in one.model.parameters() if p.requires_grad], lr=1e-2)
        for _ in range(2):
            loss_of(one, inputs, labels_BT).backward()
            optimizer.step()
        changed = {key for key, tensor in one.model.named_parameters() if not torch.equal(tensor, before[key])}
        assert changed
        assert {learning_role(key, one.family, one.model.config) for key in changed} == {part}


def test_each_part_learns_at_its_own_rate_and_gains_do_not_decay():
    one = built("llava")
    stage = Stage.model_validate(
        STAGE | {"train": ["encoder", "llm"], "lr": {"encoder": 1e-5, "llm": 1e-4}, "weight_decay": 0.1}
    )
    line = prepare(one.model, one.family, stage, 0)
    groups = parameter_groups(one.model, one.family, stage)
    assert [(group["role"], group["lr"], group["weight_decay"]) for group in groups] == [
        ("encoder", 1e-5, 0.1), ("encoder", 1e-5, 0.0), ("llm", 1e-4, 0.1), ("llm", 1e-4, 0.0),
    ]  # fmt: skip
    assert all((p.ndim >= 2) == (group["weight_decay"] > 0) for group in groups for p in group["params"])
    in_groups = [id(p) for group in groups for p in group["params"]]
    assert sorted(in_groups) == sorted(id(p) for p in one.model.parameters() if p.requires_grad)
    learns = sum(p.numel() for p in one.model.get_submodule("model.vision_tower").parameters())
    assert f"trains encoder ({learns:,} parameters), llm (" in line
    assert line.endswith("; frozen: connector (2,112)")


def test_a_stage_with_adapters_leaves_none_behind_in_the_next():
    one = built("llava")
    names = set(one.model.state_dict())
    lora = {"train": ["connector", "lora"], "lr": {"connector": 1e-4, "lora": 1e-3}, "lora": {"rank": 2, "alpha": 4}}
    line = prepare(one.model, one.family, Stage.model_validate(STAGE | lora), 0)
    assert "trains connector (2,112 parameters), lora (" in line
    groups = parameter_groups(one.model, one.family, Stage.model_validate(STAGE | lora))
    assert {group["role"] for group in groups} == {"connector", "lora"}
    prepare(one.model, one.family, Stage.model_validate(STAGE), 0)
    assert set(one.model.state_dict()) == names
    assert told(one.model, one.family).startswith("trains connector (2,112 parameters); frozen: encoder (")


@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "mllama", "blip2", "idefics2"])
def test_activations_computed_twice_give_the_same_gradients(name):
    one = built(name)
    freeze(one.model, one.family, ["connector"])
    inputs, labels_BT = batch_of(one)
    one.model.train()
    gradients = []
    for on in (False, True):
        checkpoint_activations(one.model, on)
        assert one.model.is_gradient_checkpointing == on
        one.model.zero_grad()
        loss_of(one, inputs, labels_BT).backward()
        gradients.append([p.grad.clone() for p in one.model.parameters() if p.grad is not None])
    for plain, twice in zip(*gradients, strict=True):
        torch.testing.assert_close(twice, plain, atol=1e-6, rtol=1e-5)


def without(config: dict, *names: str) -> dict:
    return {name: value for name, value in config.items() if name not in names}


@pytest.mark.parametrize(
    ("family", "changes", "words"),
    [
        ("llava", {"family": "lava"}, "family: there is no 'lava'; did you mean 'llava'\\? there are: blip2, chameleon"),
        ("llava", {"encoder": None}, "encoder: is missing; give its config, its weights"),
        ("llava", {"llm": None}, "llm: is missing"),
        ("llava", {"tokenizer": None}, "tokenizer: is missing; name a folder"),
        ("llava", {"tokenizer": "/nowhere/at/all"}, "tokenizer /nowhere/at/all: "),
        ("llava", {"llm": {"config": without(LLAMA, "model_type")}}, "llm.config: say its model_type.*llama or qwen2"),
        ("llava", {"llm": {"config": LLAMA | {"model_type": "lama"}}}, "llm.config: transformers knows no model type 'lama'"),
        ("llava", {"llm": {"config": LLAMA | {"hiden_size": 3}}}, "there is no 'hiden_size'; did you mean 'hidden_size'\\?"),
        ("llava", {"connector": {"projektor": 1}}, "connector: there is no 'projektor'.*llava has: "),
        ("llava", {"encoder": {"config": {"model_type": "resnet"}}}, "it can be clip_vision_model, .*not resnet; towers of timm"),
        ("llava", {"image": {"mode": "tiles"}}, "image.mode: llava cannot do 'tiles'; it can: single"),
        ("llava", {"image": {"max_tiles": 4}}, "image.max_tiles: belongs to tiles, but llava takes pictures single"),
        ("llava", {"image": {"side_px": 64}, "encoder": {"config": CLIP}}, "side_px is 64, but the encoder's image_size is 32"),
        ("llava", {"image": {"max_pixels": 64}}, "max_pixels: belong to families of native size"),
        ("llava", {"llm": {"config": LLAMA | {"num_attention_heads": 5}}}, "not a multiple of the number of attention heads|divisible"),
        ("llava", {"encoder": {"config": SIGLIP}, "connector": {"vision_feature_select_strategy": "default"}},
         "drops a class token, which siglip_vision_model has not; say `full`"),
        ("llava", {"template": "/nowhere.jinja"}, "template /nowhere.jinja: cannot be read"),
        ("llava", {"stages": [STAGE | {"objective": "blip2_stage1"}]}, r"stages\[0\].objective: llava cannot learn by blip2_stage1"),
        ("mllama", {"stages": [STAGE | {"pack": True}]}, r"stages\[0\].pack: rows of mllama cannot hold several samples"),
        ("fuyu", {"encoder": {"config": CLIP}}, "encoder: the family fuyu has none"),
        ("fuyu", {"stages": [STAGE | {"train": ["encoder"]}]}, r"stages\[0\].train: fuyu: it has no encoder; there are: connector, llm, lora"),
        ("chameleon", {"stages": [STAGE | {"train": ["encoder"]}]}, "its encoder cannot learn; there are: llm, lora"),
        ("idefics2", {"encoder": {"config": CLIP}}, "encoder.config.model_type: is clip_vision_model; .* takes a idefics2_vision"),
        ("idefics2", {"connector": {"perceiver_config": {"hidden_size": 48}}}, "hidden_size is 48, but the llm's hidden_size is 32"),
        ("idefics3", {"connector": {"scale_factor": 3}}, "scale_factor: is 3, which does not divide 4 patches"),
        ("blip2", {"connector": {"qformer_config": {"encoder_hidden_size": 64}}},
         "encoder_hidden_size is 64, but the encoder's hidden_size is 32"),
        ("qwen2_vl", {"encoder": {"config": PARTS["qwen2_vl"]["encoder"]["config"] | {"hidden_size": 48}}},
         "the encoder's hidden_size is 48, but the llm's hidden_size is 64"),
        ("mllama", {"encoder": {"config": PARTS["mllama"]["encoder"]["config"] | {"vision_output_dim": 32}}},
         "vision_output_dim is 32, but .* is 64"),
        ("internvl", {"encoder": {"config": VISION | {"image_size": 40}}}, "5 patches along a side cannot be brought to 2.5"),
        ("perception_lm", {"encoder": {"config": {"architecture": "vit_tiny_patch16_225"}}}, "timm cannot make 'vit_tiny_patch16_225'"),
        ("perception_lm", {"encoder": {"config": {"architecture": "resnet18"}}}, "resnet18 gives no tokens of patches"),
        ("perception_lm", {"encoder": {"config": {"architecture": "vit_small_patch14_reg4_dinov2"}}}, "5 tokens before its patches"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_what_does(family, changes, words):
    with pytest.raises(InputError, match=words):
        built(family, **changes)


def test_weights_that_do_not_fit_are_refused_with_both_shapes(tmp_path):
    folder = text_model(tmp_path / "llm", LLAMA)
    with pytest.raises(InputError, match=r"has the shape \(64, 32\), the model's has \(96, 32\)"):
        built("llava", llm={"weights": folder, "config": {"intermediate_size": 96}}, tokenizer=None)
    with pytest.raises(InputError, match="is a llama; the family qwen2_vl takes as llm qwen2_vl_text or qwen2"):
        built("qwen2_vl", llm={"weights": folder})
    with pytest.raises(InputError, match="encoder.weights /nowhere: "):
        built("llava", encoder={"weights": "/nowhere"})


def test_a_template_that_marks_no_answer_or_needs_a_token_that_is_missing_is_refused(tmp_path):
    plain = tmp_path / "plain.jinja"
    plain.write_text("{% for message in messages %}{{ message['content'] }}{% endfor %}")
    with pytest.raises(InputError, match="does not mark what the assistant says; put it between {% generation %}"):
        built("llava", template=str(plain))
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder())
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    with pytest.raises(InputError, match="tokenizer: has no chat template that marks answers, and no eos_token"):
        built("llava", tokenizer=str(tmp_path / "tokenizer"))


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_can_be_read_and_its_family_does_what_it_asks_for(path):
    read = read_yaml(path, GenerativeSpec, overrides=["llm.weights=local"]).spec
    assert read.name == path.stem
    assert read.llm.weights == "local"
    require_stages(family_named(read.family), read.stages)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stages": []}, "stages: name at least one stage"),
        ({"weights": "x", "llm": {"weights": "y"}}, "weights: brings a whole model; leave out encoder, connector and llm"),
        ({"stages": [STAGE | {"train": ["conector"]}]}, r"stages\[0\].train\[0\]: must be 'encoder', 'connector', 'llm' or 'lora'"),
        ({"stages": [STAGE | {"train": ["connector", "lora"]}]}, "lora: say `train: .*` and the adapters' rank and alpha together"),
        ({"stages": [STAGE | {"lr": {"llm": 1e-3}}]}, r"lr: names \['llm'\], but `train` names \['connector'\]"),
        ({"stages": [STAGE | {"warmup_steps": 5}]}, "warmup_steps and cooldown_steps are more than the 1 steps"),
        ({"stages": [STAGE | {"max_pack_tiles": 5}]}, "max_pack_tiles belongs to `pack: true`"),
        ({"encoder": {"wights": "x"}}, "encoder.wights: there is no 'wights'; did you mean 'weights'"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_specification_is_said_with_its_place(tmp_path, change, words):
    import yaml

    fields = {"name": "t", "task": "generative", "family": "llava", "stages": [STAGE]}
    path = tmp_path / "t.yaml"
    path.write_text(yaml.safe_dump(json.loads(json.dumps(fields | change))))
    with pytest.raises(SpecError, match=words):
        read_yaml(path, GenerativeSpec)


def test_every_parameter_of_every_family_has_a_role():
    names = [name for name in PARTS if name != "smolvlm"]
    random.Random(0).shuffle(names)
    seen = set()
    for name in names:
        one = build(spec_of(name), meta=True)
        seen.add(one.family.name)
        for key, _ in one.model.named_parameters():
            one.family.role_of(key, one.model.config)
    assert seen == set(FAMILIES) - {"smolvlm"}
