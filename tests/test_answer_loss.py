"""The loss of answers is transformers' own, and so are its gradients, without the logits of all tokens."""

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from tiny_processors import (
    hidden_states,
    llava,
    llava_layout,
    llava_processor,
    qwen,
    qwen_layout,
    qwen_processor,
    shown,
    talk,
)
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from training.generative.collation import Collated, Encoded, Layout, packed, padded
from training.generative.encoding import Encoder
from training.generative.loss import answer_loss
from training.generative.packing import Budget
from training.ranks import Ranks

pytestmark = pytest.mark.usefixtures("one_thread")


def given(count: int = 8) -> tuple[Layout, list[Encoded]]:
    """Samples whose answers differ in length by far."""
    encoder = Encoder(llava_processor(), llava_layout(), Budget(2048))
    return encoder.layout, [encoder.encode(talk((shown(n), "What?"), "cat " * (1 + n * n))) for n in range(count)]


def loss_of(model: Any, collated: Collated, label_tokens: int, **how: Any) -> Tensor:
    hidden_BLD = hidden_states(model, collated.inputs)
    return answer_loss(hidden_BLD, collated.labels_BL, model.get_output_embeddings(), label_tokens, **how)


def gradients(
    model: Any, batches: Sequence[Collated], label_tokens: int, **how: Any
) -> tuple[float, dict[str, Tensor]]:
    """The summed loss of the parts of a batch, and the gradients of all weights."""
    model = copy.deepcopy(model)
    total = 0.0
    for collated in batches:
        loss = loss_of(model, collated, label_tokens, **how)
        loss.backward()
        total += float(loss.detach())
    return total, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def require_close(first: Mapping[str, Tensor], second: Mapping[str, Tensor], atol: float = 1e-6) -> None:
    assert set(first) == set(second)
    for name, gradient in first.items():
        torch.testing.assert_close(gradient, second[name], rtol=1e-4, atol=atol, msg=name)


@pytest.mark.parametrize("chunk_rows", [1, 7, 1024])
@pytest.mark.parametrize("which", ["llava", "qwen"])
def test_loss_and_gradients_are_transformers_own(which: str, chunk_rows: int) -> None:
    model, processor, layout = {
        "llava": (llava(), llava_processor(), llava_layout()), "qwen": (qwen(), qwen_processor(), qwen_layout()),
    }[which]  # fmt: skip
    encoder = Encoder(processor, layout, Budget(2048))
    talks = [talk((shown(n), "What?"), "cat " * (1 + 3 * n), "Sure?", "Yes.") for n in range(3)]
    collated = padded([encoder.encode(one) for one in talks], layout)
    theirs = copy.deepcopy(model)
    expected = theirs(**collated.inputs, labels=collated.labels_BL, use_cache=False).loss
    expected.backward()
    labels = int((collated.labels_BL != -100).sum())
    loss, found = gradients(model, [collated], labels, chunk_rows=chunk_rows)
    assert loss == pytest.approx(float(expected.detach()), rel=1e-6)
    require_close(found, {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None})


def test_eight_parts_of_one_are_one_part_of_eight_though_their_answers_differ() -> None:
    layout, samples = given()
    labels = sum(one.label_tokens for one in samples)
    whole, expected = gradients(llava(), [padded(samples, layout)], labels)
    parts, found = gradients(llava(), [padded([one], layout) for one in samples], labels)
    in_rows, packed_found = gradients(llava(), [packed([samples[:5], samples[5:]], 800, layout)], labels)
    assert parts == pytest.approx(whole, abs=1e-6)
    assert in_rows == pytest.approx(whole, abs=1e-6)
    require_close(found, expected)
    require_close(packed_found, expected)


def test_a_compiled_loss_is_the_same_and_so_are_its_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))  # inductor takes long
    layout, samples = given(4)
    labels = sum(one.label_tokens for one in samples)
    expected, grown = gradients(llava(), [padded(samples, layout)], labels, chunk_rows=7)
    loss, found = gradients(llava(), [padded(samples, layout)], labels, chunk_rows=7, compiled=True)
    assert loss == pytest.approx(expected, abs=1e-6)
    require_close(found, grown)


def test_the_mean_over_ranks_is_the_loss_of_all() -> None:
    layout, samples = given(4)
    labels = sum(one.label_tokens for one in samples)
    whole, expected = gradients(llava(), [padded(samples, layout)], labels)
    shares = [
        gradients(llava(), [padded(share, layout)], labels, ranks=Ranks(rank, 2))
        for rank, share in enumerate((samples[:1], samples[1:]))
    ]
    assert sum(loss for loss, _ in shares) / 2 == pytest.approx(whole, abs=1e-6)
    require_close({name: (shares[0][1][name] + shares[1][1][name]) / 2 for name in expected}, expected)


def test_rows_without_a_label_give_no_loss_and_gradients_of_zero() -> None:
    layout, samples = given(2)
    collated = padded(samples, layout)
    nothing = Collated(collated.inputs, torch.full_like(collated.labels_BL, -100), collated.tokens)
    loss, found = gradients(llava(), [nothing], 10)
    assert loss == 0
    assert found["model.language_model.layers.0.self_attn.q_proj.weight"].abs().sum() == 0


class Largest(TorchDispatchMode):
    """Counts the numbers of the largest tensor that comes out of any operation."""

    numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for one in result if isinstance(result, tuple | list) else [result]:
            if isinstance(one, Tensor):
                self.numbers = max(self.numbers, one.numel())
        return result


def test_no_tensor_of_all_tokens_times_the_vocabulary_exists() -> None:
    vocabulary, width, tokens = 2000, 8, 1500
    head = torch.nn.Linear(width, vocabulary, bias=False)
    labels_BL = torch.randint(0, vocabulary, (1, tokens))
    labels_BL[:, ::2] = -100

    def largest(chunk_rows: int) -> int:
        hidden_BLD = torch.randn(1, tokens, width, requires_grad=True)
        with Largest() as seen:
            answer_loss(hidden_BLD, labels_BL, head, tokens // 2, chunk_rows=chunk_rows).backward()
        return seen.numbers

    assert largest(tokens) == vocabulary * tokens // 2  # what is labelled, and never all tokens
    assert largest(100) == 100 * vocabulary
    assert largest(4) == width * vocabulary  # the head itself is larger now
