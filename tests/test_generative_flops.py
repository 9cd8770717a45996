"""Operations that a batch takes: as torch counts them, and fewer where less learns."""

from typing import Any

import pytest
import torch
from tiny_vlm import SIGLIP, built, conversation, picture
from torch.utils.flop_counter import FlopCounterMode

from training.generative.build import Built
from training.generative.collation import IGNORED, Collated
from training.generative.flops import flops_of
from training.generative.hidden_states import hidden_states
from training.generative.parts import freeze

pytestmark = pytest.mark.usefixtures("one_thread")


def part_of(one: Built) -> Collated:
    """One conversation about a picture, every fourth token of which is learnt."""
    given: Any = one.processor.apply_chat_template(
        conversation("What is in the picture?", "a red square at the top left on grey", [picture(1)]),
        tokenize=True, return_dict=True, return_tensors="pt",
    )  # fmt: skip
    inputs = dict(given)
    labels_BL = torch.full_like(inputs["input_ids"], IGNORED)
    labels_BL[:, 1::4] = 5
    return Collated(inputs, labels_BL, inputs["input_ids"].shape[1])


@pytest.mark.parametrize("name", ["llava", "qwen2_vl"])
def test_a_forward_pass_takes_a_third_of_what_is_counted_where_all_learns(name: str) -> None:
    one = built(name, **({"encoder": {"config": SIGLIP}} if name == "llava" else {}))
    one.model.set_attn_implementation("eager")  # whose products torch counts on a CPU too
    freeze(one.model, one.family, ["encoder", "connector", "llm"])
    part = part_of(one)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        hidden_BLD = hidden_states(one.model, one.family, part.inputs)
        one.model.get_output_embeddings()(hidden_BLD[part.labels_BL != IGNORED])
    assert flops_of(one).of(part) == pytest.approx(3 * counter.get_total_flops(), rel=0.01)


def test_frozen_parts_take_less_the_less_learns_before_them() -> None:
    one = built("llava")
    part, found = part_of(one), {}
    for learns in (["encoder", "connector", "llm"], ["connector", "llm"], ["connector"]):
        freeze(one.model, one.family, learns)
        found[len(learns)] = flops_of(one)
    assert found[3].patch == 3 * found[2].patch == 3 * found[1].patch
    assert found[3].token == found[2].token == 1.5 * found[1].token
    assert found[3].of(part) > found[2].of(part) > found[1].of(part)


def test_packed_samples_attend_to_themselves_alone() -> None:
    one = built("llava")
    flops = flops_of(one)
    ids_BL = torch.full((1, 8), 7)
    labels_BL = torch.full((1, 8), IGNORED)
    apart = Collated({"input_ids": ids_BL, "position_ids": torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3]])}, labels_BL, 8)
    whole = Collated({"input_ids": ids_BL, "position_ids": torch.arange(8)[None]}, labels_BL, 8)
    assert flops.of(whole) - flops.of(apart) == flops.token_pair * (64 - 32)
