"""Specifications of vision-language models: the presets, and a sentence for whatever does not fit."""

import json
from pathlib import Path

import pytest
from tiny_vlm import (
    CLIP,
    LLAMA,
    PARTS,
    SIGLIP,
    STAGE,
    VISION,
    built,
    spec_of,
    tokenizer_folder,
)

from schemas.errors import InputError, SpecError
from schemas.generative import GenerativeSpec
from schemas.reading import read_yaml
from training.generative.build import build
from training.generative.families import family_named
from training.generative.stages import require_stages

pytestmark = pytest.mark.usefixtures("one_thread")
FILES = sorted((Path(__file__).parent.parent / "pipelines" / "training" / "presets").glob("*.yaml"))
PRESETS = [path for path in FILES if "\ntask: generative\n" in path.read_text()]


def test_a_family_that_is_not_there_is_named_with_what_exists():
    with pytest.raises(
        InputError, match="family: there is no 'lava'; did you mean 'llava'\\? there are: blip2, chameleon"
    ):
        build(spec_of("llava").model_copy(update={"family": "lava"}))


def without(config: dict, *names: str) -> dict:
    return {name: value for name, value in config.items() if name not in names}


@pytest.mark.parametrize(
    ("family", "changes", "words"),
    [
        ("llava", {"encoder": None}, "encoder: is missing; give its config, its weights"),
        ("llava", {"llm": None}, "llm: is missing"),
        ("llava", {"tokenizer": None}, "tokenizer: is missing; name a folder"),
        ("llava", {"tokenizer": "/nowhere/at/all"}, "tokenizer /nowhere/at/all: "),
        ("llava", {"llm": {"config": without(LLAMA, "model_type")}}, "llm.config: say its model_type.*llama or qwen2"),
        ("llava", {"llm": {"config": LLAMA | {"model_type": "lama"}}},
         "llm.config: transformers knows no model type 'lama'"),
        ("llava", {"llm": {"config": LLAMA | {"hiden_size": 3}}},
         "there is no 'hiden_size'; did you mean 'hidden_size'\\?"),
        ("llava", {"connector": {"projektor": 1}}, "connector: there is no 'projektor'.*llava has: "),
        ("llava", {"encoder": {"config": {"model_type": "resnet"}}},
         "it can be clip_vision_model, .*not resnet; towers of timm"),
        ("llava", {"image": {"mode": "tiles"}}, "image.mode: llava cannot do 'tiles'; it can: single"),
        ("llava", {"image": {"max_tiles": 4}}, "image.max_tiles: belongs to tiles, but llava takes pictures single"),
        ("llava", {"image": {"side_px": 64}, "encoder": {"config": CLIP}},
         "side_px is 64, but the encoder's own side is 32"),
        ("llava", {"image": {"max_pixels": 64}}, "max_pixels: belong to families of native size"),
        ("llava", {"llm": {"config": LLAMA | {"num_attention_heads": 5}}},
         "not a multiple of the number of attention heads|divisible"),
        ("llava", {"encoder": {"config": SIGLIP}, "connector": {"vision_feature_select_strategy": "default"}},
         "drops a class token, which siglip_vision_model has not; say `full`"),
        ("llava", {"template": "/nowhere.jinja"}, "template /nowhere.jinja: cannot be read"),
        ("llava", {"stages": [STAGE | {"objective": "blip2_stage1"}]},
         r"stages\[0\].objective: llava cannot learn by blip2_stage1"),
        ("mllama", {"stages": [STAGE | {"pack": True}]},
         r"stages\[0\].pack: rows of mllama cannot hold several samples"),
        ("fuyu", {"encoder": {"config": CLIP}}, "encoder: the family fuyu has none"),
        ("fuyu", {"stages": [STAGE | {"train": ["encoder"]}]},
         r"stages\[0\].train: fuyu: it has no encoder; there are: connector, llm, lora"),
        ("chameleon", {"stages": [STAGE | {"train": ["encoder"]}]}, "its encoder cannot learn; there are: llm, lora"),
        ("idefics2", {"encoder": {"config": CLIP}},
         "encoder.config.model_type: is clip_vision_model; .* takes a idefics2_vision"),
        ("idefics2", {"connector": {"perceiver_config": {"hidden_size": 48}}},
         "hidden_size is 48, but the llm's hidden_size is 32"),
        ("idefics2", {"image": {"mode": "tiles", "max_tiles": 9}},
         "max_tiles is 9, but the quarters that idefics2 makes"),
        ("idefics3", {"connector": {"scale_factor": 3}}, "scale_factor: is 3, which does not divide 4 patches"),
        ("blip2", {"connector": {"qformer_config": {"encoder_hidden_size": 64}}},
         "encoder_hidden_size is 64, but the encoder's hidden_size is 32"),
        ("qwen2_vl", {"encoder": {"config": PARTS["qwen2_vl"]["encoder"]["config"] | {"hidden_size": 48}}},
         "the encoder's hidden_size is 48, but the llm's hidden_size is 64"),
        ("mllama", {"encoder": {"config": PARTS["mllama"]["encoder"]["config"] | {"vision_output_dim": 32}}},
         "vision_output_dim is 32, but .* is 64"),
        ("chameleon", {"image": {"side_px": 48}}, "side_px is 48, but the encoder's own side is 32"),
        ("perception_lm", {"image": {"side_px": 48}}, "side_px is 48, but the encoder's own side is 32"),
        ("qwen3_vl", {"image": {"side_px": 48}}, "image.side_px: qwen3_vl takes pictures in their own size"),
        ("internvl", {"encoder": {"config": VISION | {"image_size": 40}}},
         "5 patches along a side cannot be brought to 2.5"),
        ("perception_lm", {"encoder": {"config": {"architecture": "vit_tiny_patch16_225"}}},
         "timm cannot make 'vit_tiny_patch16_225'"),
        ("perception_lm", {"encoder": {"config": {"architecture": "resnet18"}}}, "resnet18 gives no tokens of patches"),
        ("perception_lm", {"encoder": {"config": {"architecture": "vit_small_patch14_reg4_dinov2"}}},
         "5 tokens before its patches"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_what_does(family, changes, words):
    with pytest.raises(InputError, match=words):
        built(family, **changes)


def test_a_template_that_marks_no_answer_or_needs_a_token_that_is_missing_is_refused(tmp_path):
    plain = tmp_path / "plain.jinja"
    plain.write_text("{% for message in messages %}{{ message['content'] }}{% endfor %}")
    with pytest.raises(InputError, match=r"put it between \{% generation %\} and \{% endgeneration %\}"):
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
        ({"weights": "x", "llm": {"weights": "y"}},
         "weights: brings a whole model; leave out encoder, connector and llm"),
        ({"stages": [STAGE | {"train": ["conector"]}]},
         r"stages\[0\].train\[0\]: must be 'encoder', 'connector', 'llm' or 'lora'"),
        ({"stages": [STAGE | {"train": ["connector", "lora"]}]},
         "lora: say `train: .*` and the adapters' rank and alpha together"),
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


def test_a_name_of_the_hub_without_network_is_a_sentence(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        InputError, match="tokenizer nobody/nothing: not here, and the hub cannot be reached; name a local"
    ):
        built("llava", tokenizer="nobody/nothing")


def test_a_folder_that_is_not_there_is_a_sentence(tmp_path):
    for part in ("encoder", "llm"):
        with pytest.raises(InputError, match=f"{part}.weights {tmp_path}/no/tower: there is no such folder"):
            built("llava", **{part: {"weights": f"{tmp_path}/no/tower"}})
    with pytest.raises(InputError, match=r"tokenizer .*/no/words: there is no such folder"):
        built("llava", tokenizer=f"{tmp_path}/no/words")
