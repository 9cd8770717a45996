"""What the table says of packing is true: samples in one row say what they say alone."""

import pytest
import torch
from test_families import ANSWERS, QUESTION, shown
from tiny_vlm import PARTS, built, conversation

from training.generative.build import Built
from training.generative.families import FAMILIES
from training.generative.packed_attention import PackedAttention, begins_of
from training.generative.positions import sample_positions

pytestmark = pytest.mark.usefixtures("one_thread")
BY_TOKEN = ("input_ids", "mm_token_type_ids")


def encoded(one: Built, number: int) -> dict[str, torch.Tensor]:
    """A sample as the processor gives it."""
    said = conversation(QUESTION, ANSWERS[number], [shown(number)])
    return dict(
        one.processor.apply_chat_template(
            [said], tokenize=True, return_dict=True, return_tensors="pt", processor_kwargs=dict(one.family.call)
        )
    )


def joined(values: list[torch.Tensor], axis: int) -> torch.Tensor:
    """Along an axis, filled with zeros to the largest along the others."""
    most = [max(value.shape[i] for value in values) for i in range(values[0].ndim)]
    filled = []
    for value in values:
        whole = value.new_zeros([value.shape[i] if i == axis else most[i] for i in range(value.ndim)])
        whole[tuple(slice(side) for side in value.shape)] = value
        filled.append(whole)
    return torch.cat(filled, axis)


def packed(one: Built, samples: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """One row of all samples, as the facts of the family say."""
    row = {}
    for name in samples[0]:
        values = [sample[name] for sample in samples]
        if name in BY_TOKEN:
            row[name] = torch.cat(values, 1)
        elif name == "attention_mask":
            continue
        elif one.family.stacked == "tiles":
            row[name] = joined([value.flatten(0, 1)[None] for value in values], 1)
        else:
            row[name] = joined(values, int(one.family.stacked == "rows"))
    where = sample_positions(one)
    positions_RL = torch.cat([where(sample) for sample in samples], 1)
    return row | {"position_ids": positions_RL if len(positions_RL) == 1 else positions_RL[:, None]}


@pytest.mark.parametrize(
    "name", [name for name in PARTS if name in FAMILIES and FAMILIES[name].packs and name != "smolvlm"]
)
def test_samples_in_one_row_say_what_they_say_alone(name):
    one = built(name)
    samples = [encoded(one, number) for number in range(3)]
    row = packed(one, samples)
    with torch.no_grad():
        masked_1LV = one.model(**row, use_cache=False).logits
        alone_1LV = torch.cat([one.model(**sample, use_cache=False).logits for sample in samples], 1)
        one_by_one = PackedAttention(one.model)
        positions = row["position_ids"]
        with one_by_one.of(*begins_of(positions if positions.ndim == 2 else positions[0])):
            quick_1LV = one.model(**row, use_cache=False).logits
    torch.testing.assert_close(masked_1LV, alone_1LV, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(quick_1LV, alone_1LV, atol=1e-5, rtol=1e-5)
    decoder = one.model.get_decoder().config
    assert (decoder._attn_implementation == "sdpa") == bool(getattr(decoder, "sliding_window", None))
    assert one.family.count_tiles(samples[0]) >= 1


def test_begins_of_samples_and_a_bound_of_their_length():
    positions_BL = torch.tensor([[0, 1, 2, 0, 1], [0, 1, 2, 3, 4]])
    begins_N1, longest = begins_of(positions_BL)
    assert begins_N1.tolist() == [0, 3, 5, 10]
    assert longest == 8
