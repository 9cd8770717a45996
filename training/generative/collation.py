"""Samples put together to what a model takes: packed into rows apart from each other, or padded on the right.

Shapes: T tokens of a sample, B rows, L tokens of a row, R rows of positions (1, or 4 with M-RoPE).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

IGNORED = -100
"""The label of a token that is not learnt, as torch's cross-entropy has it."""
_BY_TOKEN = frozenset({"input_ids", "token_type_ids", "mm_token_type_ids", "cross_attention_mask"})


Stacked = Literal["all", "rows", "tiles"]
"""What the first axis of a family's picture tensors counts, and so how those of several samples are joined.

    all     the pictures, tiles or patches of all rows [n, …], one after the other
    rows    the rows of a batch [B, n, …]; those of one pack go into one row, short rows are filled with zeros
    tiles   pictures, each with its tiles [n, t, …], of which the model sees t alone: all go into one [1, Σt, …]
"""


@dataclass(frozen=True)
class Layout:
    """What samples of a family are like, and how they become a batch of its model.

    `count_tiles` says how many pictures or tiles what the processor made of a sample holds; `positions` gives R rows
    of positions [R, T] of one sample (without it they count from 0), `by_token` names inputs [1, T, …] that go along
    with its tokens. `videos`: the processor takes videos, else they are shown as pictures; `call` is what else the
    processor is called with. `needs_pictures`: the model reads no text alone. `decoder_start_id`: answers go to a
    decoder of their own (T5's), which begins with that token.
    """

    count_tiles: Callable[[Mapping[str, Tensor]], int]
    packs: bool = True
    pad_id: int = 0
    stacked: Stacked = "all"
    positions: Callable[[Mapping[str, Tensor]], Tensor] | None = None
    videos: bool = False
    call: Mapping[str, Any] = field(default_factory=dict)
    needs_pictures: bool = False
    decoder_start_id: int | None = None
    by_token: frozenset[str] = _BY_TOKEN


@dataclass(frozen=True)
class Encoded:
    """One sample as the processor gives it, without its mask, and int64 `labels_T`: -100 where nothing is learnt.

    `shortened`: it lacks turns from its end, which did not fit.
    """

    inputs: Mapping[str, Tensor]
    labels_T: Tensor
    tiles: int
    shortened: bool = False

    @property
    def tokens(self) -> int:
        """Its length, without an answer that a decoder of its own gives."""
        return int(self.inputs["input_ids"].shape[1])

    @property
    def label_tokens(self) -> int:
        """How many tokens of it are learnt."""
        return int((self.labels_T != IGNORED).sum())


@dataclass(frozen=True)
class Collated:
    """Rows of a batch: `inputs` for the model, int64 `labels_BL`, and how many tokens are no padding.

    Of packed rows the model keeps samples apart only if it is called with use_cache=False: a cache, which transformers
    makes even in training, turns that off without a word.
    """

    inputs: dict[str, Tensor]
    labels_BL: Tensor
    tokens: int


def packed(rows: Sequence[Sequence[Encoded]], length: int, layout: Layout) -> Collated:
    """Rows of `length` tokens with several samples each; `position_ids` start anew with every sample, no mask."""
    inputs = _by_token(rows, length, layout) | _pictures(rows, layout)
    positions = [_with_rest([_positions(one, layout) for one in row], length) for row in rows]
    positions_RBL = torch.stack(positions, 1)
    inputs["position_ids"] = positions_RBL[0] if len(positions_RBL) == 1 else positions_RBL
    return Collated(inputs, _labels(rows, length), sum(one.tokens for row in rows for one in row))


def padded(samples: Sequence[Encoded], layout: Layout) -> Collated:
    """A row for each sample, padded on the right to the longest, with `attention_mask`."""
    length = max(sample.tokens for sample in samples)
    rows = [[sample] for sample in samples]
    inputs = _by_token(rows, length, layout) | _pictures(rows, layout)
    tokens_B1 = torch.tensor([[sample.tokens] for sample in samples])
    inputs["attention_mask"] = (torch.arange(length)[None] < tokens_B1).long()
    return Collated(inputs, _labels(rows, max(len(one.labels_T) for one in samples)), int(tokens_B1.sum()))


def _by_token(rows: Sequence[Sequence[Encoded]], length: int, layout: Layout) -> dict[str, Tensor]:
    """The inputs [B, L, …] that go along with the tokens; zeros for samples that lack one."""
    inputs = {}
    for name in _names(rows, layout, by_token=True):
        fill = layout.pad_id if name == "input_ids" else 0
        some = next(one.inputs[name] for row in rows for one in row if name in one.inputs)
        of_rows = []
        for row in rows:
            nothing = [some.new_zeros(1, one.tokens, *[0] * (some.ndim - 2)) for one in row]
            values = [one.inputs.get(name, zeros) for one, zeros in zip(row, nothing, strict=True)]
            of_rows.append(_row(values, length, fill))
        inputs[name] = _joined(of_rows, 0)
    return inputs


def _labels(rows: Sequence[Sequence[Encoded]], length: int) -> Tensor:
    return torch.cat([_row([one.labels_T[None] for one in row], length, IGNORED) for row in rows])


def _names(rows: Sequence[Sequence[Encoded]], layout: Layout, *, by_token: bool) -> list[str]:
    names = dict.fromkeys(name for row in rows for one in row for name in one.inputs)
    return [name for name in names if (name in layout.by_token) == by_token]


def _pictures(rows: Sequence[Sequence[Encoded]], layout: Layout) -> dict[str, Tensor]:
    """All inputs that do not go along with tokens, in the order of the samples."""
    joined = {}
    for name in _names(rows, layout, by_token=False):
        of_rows = [[one.inputs[name] for one in row if name in one.inputs] for row in rows]
        every = [value for row in of_rows for value in row]
        if layout.stacked == "rows":
            nothing = every[0].new_zeros(1, 0, *every[0].shape[2:])
            joined[name] = _joined([_joined(row, 1) if row else nothing for row in of_rows], 0)
        elif layout.stacked == "tiles":
            joined[name] = _joined([value.flatten(0, 1)[None] for value in every], 1)
        else:
            joined[name] = _joined(every, 0)
    return joined


def _joined(values: Sequence[Tensor], axis: int) -> Tensor:
    """The values one after the other along an axis, filled with zeros to the largest along all others."""
    most = [max(value.shape[i] for value in values) for i in range(values[0].ndim)]
    whole = [_filled(value, [value.shape[i] if i == axis else side for i, side in enumerate(most)]) for value in values]
    return torch.cat(whole, axis)


def _filled(value: Tensor, shape: Sequence[int]) -> Tensor:
    if list(value.shape) == list(shape):
        return value
    whole = value.new_zeros(*shape)
    whole[tuple(slice(side) for side in value.shape)] = value
    return whole


def _row(values: Sequence[Tensor], length: int, fill: int) -> Tensor:
    """[1, T, …] of several samples as one row [1, L, …]."""
    used = sum(value.shape[1] for value in values)
    return _joined([*values, values[0].new_full((1, length - used, *values[0].shape[2:]), fill)], 1)


def _positions(sample: Encoded, layout: Layout) -> Tensor:
    """Positions [R, T] of one sample."""
    if layout.positions is not None:
        return layout.positions(sample.inputs)
    return torch.arange(sample.tokens)[None]


def _with_rest(positions: Sequence[Tensor], length: int) -> Tensor:
    """Positions of a row [R, L]; what is left at its end is a sample by itself, of which nothing is learnt."""
    used = sum(one_RT.shape[1] for one_RT in positions)
    rest_RT = torch.arange(length - used)[None].expand(len(positions[0]), -1)
    return torch.cat([*positions, rest_RT], 1)
