"""A conversation as tokens, pictures and labels: the family's processor and chat template say how.

Shapes: T tokens of one sample, the placeholders of its pictures among them.
"""

import copy
import re
import threading
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from schemas.errors import InputError
from training.generative.collation import IGNORED, Encoded, Layout
from training.generative.conversations import Conversation, Picture, Unfit
from training.generative.packing import Budget

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_MASKS = ("attention_mask", "assistant_masks")


class Encoder:
    """Encodes conversations in any number of threads; each has a processor of its own, for tokenizers are not shared.

    A conversation beyond the budget is shortened by whole turns from its end, never inside one: a picture's
    placeholders cannot be cut.
    """

    def __init__(self, processor: Any, layout: Layout, budget: Budget) -> None:
        """Raises InputError where the processor cannot tell answers from questions."""
        self._template = _template_of(processor)
        self.layout = layout
        self.budget = budget
        self._processor = processor
        self._control = _control_tokens(processor)
        self._of_thread = threading.local()
        self._copying = threading.Lock()

    def encode(self, conversation: Conversation) -> Encoded:
        """The sample, with -100 for labels outside the assistant's tokens.

        Raises Unfit: a picture `missing` or `broken`; `unanswered`, where no token is to be learnt; `too_long`, where
        even the first answer is beyond the budget; `control`, where a text holds a control token of the model, which
        would be read as such; `no_picture`, where the model needs one; `rejected`, by the processor or its template.
        """
        if self.layout.needs_pictures and not conversation.pictures:
            raise Unfit("no_picture", f"{conversation.name}: shows no picture, and the model reads no text alone")
        found = next((token for text in conversation.texts for token in self._control.findall(text)), None)
        if found is not None:
            raise Unfit("control", f"{conversation.name}: a text holds the control token {found!r}")
        if not conversation.answers:
            raise Unfit("unanswered", f"{conversation.name}: nobody answers in it")
        seen = {picture: picture.read() for picture in dict.fromkeys(conversation.pictures)}
        encoded = self._encoded(conversation, seen)
        if not self.budget.holds(encoded.tokens, encoded.tiles):
            encoded = self._shortened(conversation, seen, encoded)
        if not encoded.label_tokens:
            raise Unfit("unanswered", f"{conversation.name}: has no token to learn: its answers are empty")
        return encoded

    def _shortened(
        self, conversation: Conversation, seen: Mapping[Picture, Sequence[np.ndarray]], whole: Encoded
    ) -> Encoded:
        """With as many of its answers as fit."""
        tried: dict[int, Encoded] = {}

        def is_over(answers: int) -> bool:
            tried[answers] = self._encoded(conversation.until(answers), seen)
            return not self.budget.holds(tried[answers].tokens, tried[answers].tiles)

        fitting = bisect_right(range(1, conversation.answers), False, key=is_over)
        if not fitting:
            most = f"{self.budget.tokens} tokens" + (f" and {self.budget.tiles} tiles" if self.budget.tiles else "")
            first = tried.get(1, whole)
            raise Unfit(
                "too_long",
                f"{conversation.name}: up to its first answer it has {first.tokens} tokens and {first.tiles} tiles; "
                f"{most} are allowed (max_tokens, max_pack_tiles); raise them, or take smaller or fewer pictures",
            )
        return replace(tried[fitting], shortened=True)

    def _encoded(self, conversation: Conversation, seen: Mapping[Picture, Sequence[np.ndarray]]) -> Encoded:
        asked_and_answered = conversation.until(conversation.answers)
        messages = asked_and_answered.messages(seen, videos=self.layout.videos)
        try:
            given = self._given(messages, return_assistant_tokens_mask=True)
            if self.layout.decoder_start_id is not None:
                asked = self._given(messages[:-1], add_generation_prompt=True)
                return self._answered_apart(asked, given, self.layout.decoder_start_id)
        except Exception as error:  # templates and processors raise whatever they like about one sample
            raise Unfit("rejected", f"{conversation.name}: {type(error).__name__}: {error}") from error
        answers_T = given["assistant_masks"][0].bool()
        labels_T = torch.where(answers_T, given["input_ids"][0], IGNORED)
        labels_T[0] = IGNORED  # nothing stands before it that could tell it; in a pack, another sample would
        return self._sample(given, labels_T)

    def _answered_apart(self, asked: Any, given: Any, start: int) -> Encoded:
        """The last answer as what a decoder of its own says to all that came before it."""
        ids_T, answers_T = given["input_ids"][0], given["assistant_masks"][0].bool()
        begins = torch.nonzero(answers_T[1:] & ~answers_T[:-1])[-1].item() + 1
        answer_N = ids_T[begins:][answers_T[begins:]]
        asked["decoder_input_ids"] = torch.cat([ids_T.new_tensor([start]), answer_N])[None]
        return self._sample(asked, torch.cat([ids_T.new_tensor([IGNORED]), answer_N]))

    def _sample(self, given: Any, labels_T: Tensor) -> Encoded:
        inputs = {name: value for name, value in given.items() if name not in _MASKS}
        return Encoded(inputs, labels_T, self.layout.count_tiles(inputs))

    def _given(self, messages: list[dict[str, Any]], **how: Any) -> Any:
        """What the processor makes of messages."""
        arguments = dict(self.layout.call) | ({"do_sample_frames": False} if self.layout.videos else {})
        return self._mine().apply_chat_template(
            messages, tokenize=True, return_dict=True, return_tensors="pt", processor_kwargs=arguments, **how
        )

    def _mine(self) -> Any:
        if not hasattr(self._of_thread, "processor"):
            with self._copying:
                self._of_thread.processor = _own(self._processor, self._template)
        return self._of_thread.processor


def _own(processor: Any, template: str) -> Any:
    """A copy for this thread alone, that does the same."""
    mine = copy.deepcopy(processor)
    # transformers compiles a template once for all threads, and that one object notes where answers stand: two threads
    # at once lose each other's answers, mostly without a word. A comment makes it another template with the same text.
    mine.chat_template = f"{{# {threading.get_ident()} #}}\n{template}"

    def marked(given: Any, answers: Any) -> Any:
        given["offset_mapping"] = given["offset_mapping"].tolist()  # a tensor, gone through number by number: 40 ms
        return type(mine)._adjust_assistant_masks_indices(mine, given, answers)

    mine._adjust_assistant_masks_indices = marked
    return mine


def _template_of(processor: Any) -> str:
    """The chat template, which must mark answers. Raises InputError."""
    template = processor.chat_template
    template = template.get("default") if isinstance(template, dict) else template
    name = type(processor).__name__
    if template is None:
        raise InputError(f"{name}: has no chat template; name a file with one: `template`")
    if not _GENERATION.search(template):
        raise InputError(
            f"{name}: its chat template does not mark answers, so nothing says what is to be learnt; write "
            "{% generation %} and {% endgeneration %} around what the assistant says, in the file of `template`"
        )
    if not processor.tokenizer.is_fast:
        raise InputError(
            f"{name}: its tokenizer {type(processor.tokenizer).__name__} does not say where a token stands in the text;"
            " take a tokenizer.json"
        )
    return str(template)


def _control_tokens(processor: Any) -> re.Pattern[str]:
    """What finds tokens that mean something to the model in a text, where nobody should write them."""
    tokens = {token.content for token in processor.tokenizer.added_tokens_decoder.values() if token.special}
    tokens |= {str(getattr(processor, name)) for name in ("image_token", "video_token") if getattr(processor, name, "")}
    return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) or r"(?!)")
