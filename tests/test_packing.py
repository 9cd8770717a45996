"""Samples in one row stay apart: each token has the loss of its sample alone; rows are full, ranks alike in tokens."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_processors import (
    SIDE_PX,
    hidden_states,
    llava,
    llava_layout,
    llava_processor,
    mrope,
    qwen,
    qwen_layout,
    qwen_processor,
    shown,
    talk,
)
from torch import Tensor
from torch.nn import functional

from training.generative.collation import Collated, Encoded, Layout, packed, padded
from training.generative.conversations import Picture
from training.generative.encoding import Encoder
from training.generative.packing import Budget, best_fit, dealt, fullest

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 4)), min_size=1, max_size=60)


@settings(max_examples=150, deadline=None)
@given(SIZES, st.integers(50, 90), st.sampled_from([None, 4, 7]))
def test_every_sample_is_in_one_row_and_no_row_holds_too_much(
    sizes: list[tuple[int, int]], most: int, most_tiles: int | None
) -> None:
    tokens, tiles = zip(*sizes, strict=True)
    rows = best_fit(tokens, tiles, Budget(most, most_tiles))
    assert rows is not None
    assert sorted(place for row in rows for place in row) == list(range(len(sizes)))
    for row in rows:
        assert sum(tokens[place] for place in row) <= most
        assert most_tiles is None or sum(tiles[place] for place in row) <= most_tiles
    assert best_fit(tokens, tiles, Budget(most, most_tiles), len(rows)) == rows
    assert best_fit(tokens, tiles, Budget(most, most_tiles), len(rows) - 1) is None


@settings(max_examples=150, deadline=None)
@given(SIZES, st.integers(1, 6), st.sampled_from([None, 4]))
def test_a_window_is_the_beginning_of_what_comes_and_fills_all_its_rows(
    sizes: list[tuple[int, int]], rows: int, most_tiles: int | None
) -> None:
    tokens, tiles = zip(*sizes, strict=True)
    found = fullest(tokens, tiles, Budget(50, most_tiles), rows)
    if found is None:  # perhaps all that comes fits, so more may
        assert sum(tokens) <= rows * 50
        return
    assert len(found) == rows
    assert all(found)
    assert sorted(place for row in found for place in row) == list(range(sum(map(len, found))))
    later = fullest([*tokens, 50, 50], [*tiles, 4, 4], Budget(50, most_tiles), rows)
    assert later == found  # however many more were drawn


def test_best_fit_is_the_one_written_out_by_hand() -> None:
    assert best_fit([5, 7, 5, 3], [0] * 4, Budget(10)) == [[1, 3], [0, 2]]
    assert best_fit([4, 4, 4, 4], [1, 3, 3, 1], Budget(100, 4)) == [[1, 0], [2, 3]]


def caption_lengths(count: int, seed: int = 0) -> tuple[list[int], list[int]]:
    """Tokens and tiles as captions of all lengths beside one to five tiles of 144 tokens have them."""
    draw = np.random.default_rng(seed)
    tiles = draw.integers(1, 6, count)
    tokens = tiles * 144 + np.clip(draw.lognormal(4.2, 0.8, count), 8, 1000).astype(int)
    return tokens.tolist(), tiles.tolist()


@pytest.mark.parametrize(("budget", "least"), [(Budget(4096), 0.98), (Budget(2048), 0.95), (Budget(4096, 26), 0.95)])
def test_rows_are_at_least_95_percent_full_on_captions_of_all_lengths(budget: Budget, least: float) -> None:
    tokens, tiles = caption_lengths(4000)
    begin, full = 0, []
    while rows := fullest(tokens[begin : begin + 600], tiles[begin : begin + 600], budget, 16):
        count = sum(map(len, rows))
        full.append(sum(tokens[begin : begin + count]) / (16 * budget.tokens))
        begin += count
    assert len(full) > 10
    assert np.mean(full) >= least


def test_ranks_take_as_many_rows_and_nearly_as_many_tokens_each() -> None:
    tokens, _ = caption_lengths(256, seed=1)
    shares = dealt(tokens, 8, 2)
    assert sorted(row for rank in shares for part in rank for row in part) == list(range(256))
    assert {len(part) for rank in shares for part in rank} == {16}
    of_ranks = [sum(tokens[row] for part in rank for row in part) for rank in shares]
    assert max(of_ranks) / min(of_ranks) < 1.005
    for long, short in shares:  # similar lengths in one part, so that little is padded
        assert min(tokens[row] for row in long) >= max(tokens[row] for row in short)


def samples(which: str) -> tuple[Any, Layout, list[Encoded]]:
    """A tiny model, its layout, and samples with no, one, two pictures of several sizes, and a video where it can."""
    model, processor, layout = {
        "llava": (llava, llava_processor, llava_layout), "qwen": (qwen, qwen_processor, qwen_layout),
    }[which]  # fmt: skip
    video = Picture("v", lambda: [np.full((32, 48, 3), 40 * n, np.uint8) for n in range(4)], video=True)
    talks = [
        talk((shown(1, 40, 32), "What is it?"), "A cat.", "Sure?", "Yes, quite."), talk("Two and two?", "Four."),
        talk((shown(2, 64, 32), " or ", shown(3, 32, 48), "?"), "Neither."), talk((video, "Then?"), "It dawns."),
        talk((shown(4, 33, 57), "x"), "y"),
    ]  # fmt: skip
    encoder = Encoder(processor(), layout(), Budget(2048))
    return model(), layout(), [encoder.encode(one) for one in talks]


def token_losses(model: Any, collated: Collated) -> list[float]:
    """The loss of every token that is learnt, row by row."""
    with torch.no_grad():
        logits_BLV = model.lm_head(hidden_states(model, collated.inputs)).float()
    labels_BL = collated.labels_BL
    losses = functional.cross_entropy(logits_BLV[:, :-1].flatten(0, 1), labels_BL[:, 1:].flatten(), reduction="none")
    return losses[labels_BL[:, 1:].flatten() != -100].tolist()


@pytest.mark.parametrize("which", ["llava", "qwen"])
@pytest.mark.parametrize("rows", [[[0, 1, 2, 3, 4]], [[3, 0], [4, 2, 1]]], ids=["one row", "two rows"])
def test_the_loss_of_each_packed_token_is_that_of_its_sample_alone(which: str, rows: list[list[int]]) -> None:
    model, layout, given = samples(which)
    alone = [token_losses(model, padded([given[place]], layout)) for row in rows for place in row]
    together = token_losses(model, packed([[given[place] for place in row] for row in rows], 700, layout))
    assert together == pytest.approx([loss for one in alone for loss in one], abs=1e-5)
    assert len(together) == sum(one.label_tokens for one in given)


def test_with_a_cache_packed_samples_see_each_other() -> None:
    model, layout, given = samples("llava")
    one = packed([given], 700, layout)
    with torch.no_grad():
        apart, joined = (
            model.model(**one.inputs, use_cache=cached).last_hidden_state for cached in (False, True)
        )  # fmt: skip
    first = given[0].tokens
    assert torch.allclose(apart[:, :first], joined[:, :first], atol=1e-5)
    assert not torch.allclose(apart[:, first:], joined[:, first:], atol=1e-2)


@pytest.mark.parametrize("which", ["llava", "qwen"])
def test_padded_rows_have_the_losses_of_their_samples(which: str) -> None:
    model, layout, given = samples(which)
    alone = [loss for one in given for loss in token_losses(model, padded([one], layout))]
    assert token_losses(model, padded(given, layout)) == pytest.approx(alone, abs=1e-5)


def test_a_packed_row_begins_each_sample_at_zero_and_has_no_mask() -> None:
    _, layout, given = samples("llava")
    made = packed([given[:2]], 400, layout)
    first, second = (one.tokens for one in given[:2])
    expected = [*range(first), *range(second), *range(400 - first - second)]
    assert made.inputs["position_ids"].tolist() == [expected]
    assert "attention_mask" not in made.inputs
    assert made.inputs["input_ids"].shape == made.labels_BL.shape == (1, 400)
    assert (made.tokens, int((made.labels_BL != -100).sum())) == (
        first + second,
        given[0].label_tokens + given[1].label_tokens,
    )
    assert (made.inputs["input_ids"][0, first + second :] == layout.pad_id).all()


def test_rows_of_m_rope_have_text_positions_first_and_three_of_each_sample() -> None:
    _, layout, given = samples("qwen")
    made = packed([given[:2], given[2:4]], 300, layout)
    positions_RBL = made.inputs["position_ids"]
    assert positions_RBL.shape == (4, 2, 300)
    for row, pair in enumerate((given[:2], given[2:4])):
        first = pair[0].tokens
        second = slice(first, first + pair[1].tokens)
        assert torch.equal(positions_RBL[0, row, :first], torch.arange(first))
        assert torch.equal(positions_RBL[:, row, second], mrope(pair[1].inputs))


def stacked(how: Any, *shapes: Sequence[int] | None, pack: bool) -> Tensor | None:
    """What becomes of pictures of those shapes, the n-th filled with n."""
    layout = Layout(lambda _: 0, stacked=how)
    given = []
    for number, shape in enumerate(shapes, 1):
        inputs = {"input_ids": torch.ones(1, 3, dtype=torch.long)}
        if shape is not None:
            inputs["pixel_values"] = torch.full(tuple(shape), float(number))
        given.append(Encoded(inputs, torch.zeros(3, dtype=torch.long), 0))
    made = packed([given[:2], given[2:]], 8, layout) if pack else padded(given, layout)
    return made.inputs.get("pixel_values")


def test_pictures_are_joined_as_their_family_stacks_them() -> None:
    tile = (3, SIDE_PX, SIDE_PX)
    of_all = stacked("all", (2, 3, *tile), None, (1, 5, *tile), pack=True)  # LLaVA-1.6: tiles filled up with zeros
    assert of_all is not None
    assert of_all.shape == (3, 5, *tile)
    assert of_all.mean((2, 3, 4)).tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [3, 3, 3, 3, 3]]
    for pack, expected in ((True, [[1, 1, 2], [3, 0, 0]]), (False, [[1, 1], [2, 0], [3, 0]])):  # Idefics
        of_rows = stacked("rows", (1, 2, *tile), (1, 1, *tile), (1, 1, *tile), pack=pack)
        assert of_rows is not None
        assert of_rows.mean((2, 3, 4)).tolist() == expected
    without = stacked("rows", None, (1, 1, *tile), None, pack=False)
    assert without is not None
    assert without.mean((2, 3, 4)).tolist() == [[0], [2], [0]]
    of_tiles = stacked("tiles", (2, 2, *tile), (1, 1, *tile), (1, 2, *tile), pack=True)  # PerceptionLM
    assert of_tiles is not None
    assert of_tiles.mean((2, 3, 4)).tolist() == [[1, 1, 1, 1, 2, 3, 3]]
    assert stacked("all", None, None, None, pack=True) is None


def test_what_goes_along_with_tokens_is_padded_with_them() -> None:
    layout = Layout(lambda _: 0, pad_id=7)
    given = []
    for tokens, pictures in ((3, 2), (2, 0), (2, 1)):
        inputs = {"input_ids": torch.ones(1, tokens, dtype=torch.long)}
        if pictures:
            inputs["cross_attention_mask"] = torch.ones(1, tokens, pictures, 4, dtype=torch.long)
        given.append(Encoded(inputs, torch.zeros(tokens, dtype=torch.long), 0))
    made = padded(given, layout)
    assert made.inputs["input_ids"].tolist() == [[1, 1, 1], [1, 1, 7], [1, 1, 7]]
    assert made.inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0], [1, 1, 0]]
    assert made.labels_BL.tolist() == [[0, 0, 0], [0, 0, -100], [0, 0, -100]]
    mask_BLnt = made.inputs["cross_attention_mask"]
    assert mask_BLnt.shape == (3, 3, 2, 4)
    assert mask_BLnt.sum((2, 3)).tolist() == [[8, 8, 8], [0, 0, 0], [4, 4, 0]]
