"""What learns in a stage and at which rate; adapters between stages; activations computed twice."""

import pytest
import torch
from test_families import batch_of, loss_of
from tiny_vlm import (
    PARTS,
    STAGE,
    built,
    conversation,
    picture,
    spec_of,
)

from schemas.generative import Stage
from training.generative.answer import prompts
from training.generative.build import build
from training.generative.families import FAMILIES
from training.generative.parts import checkpoint_activations, freeze, learning_role, parameter_groups, prepare, told

pytestmark = pytest.mark.usefixtures("one_thread")


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
        assert one.model.is_activation_checkpointing == on
        one.model.zero_grad()
        loss_of(one, inputs, labels_BT).backward()
        gradients.append([p.grad.clone() for p in one.model.parameters() if p.grad is not None])
    for plain, twice in zip(*gradients, strict=True):
        torch.testing.assert_close(twice, plain, atol=1e-6, rtol=1e-5)


def test_every_parameter_of_every_family_has_a_role():
    seen = set()
    for name in (name for name in PARTS if name != "smolvlm"):
        one = build(spec_of(name), meta=True)
        seen.add(one.family.name)
        for key, _ in one.model.named_parameters():
            one.family.role_of(key, one.model.config)
    assert seen == set(FAMILIES) - {"smolvlm"}


CLIP_L = {
    "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
    "num_attention_heads": 16, "image_size": 336, "patch_size": 14,
}  # fmt: skip
LLAMA_7B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "vocab_size": 32000,
}  # fmt: skip
QWEN2_1_5B = {
    "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
    "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("family", "parts", "tokens", "line"),
    [
        (
            "llava", {"encoder": {"config": CLIP_L}, "llm": {"config": LLAMA_7B}}, 576,
            "trains connector (20,979,712 parameters); frozen: encoder (303,507,456), llm (6,738,415,616)",
        ),
        (
            "llava_next", {"encoder": {"config": CLIP_L}, "llm": {"config": LLAMA_7B}, "image": {"max_tiles": 4}}, 2928,
            "trains connector (20,983,808 parameters); frozen: encoder (303,507,456), llm (6,738,415,616)",
        ),
        (
            "qwen2_vl", {"encoder": {"config": {}}, "llm": {"config": QWEN2_1_5B}}, 576,
            "trains connector (34,087,936 parameters); frozen: encoder (631,183,360), llm (1,543,714,304)",
        ),
    ],
)  # fmt: skip
def test_models_of_published_sizes_have_the_parameters_and_tokens_that_are_published(family, parts, tokens, line):
    one = build(spec_of(family, **parts), meta=True)
    freeze(one.model, one.family, ["connector"])
    assert told(one.model, one.family) == line
    inputs = prompts(one, [conversation("What?", None, [picture(0, 672, 672)])])
    assert int((inputs["input_ids"] == one.model.config.image_token_id).sum()) == tokens
