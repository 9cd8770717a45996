"""Labels are the assistant's tokens, exactly; what cannot be learnt from is told, never cut inside a picture."""

import re
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from tiny_processors import llava_layout, llava_processor, qwen_layout, qwen_processor, shown, talk, tokenizer

from schemas.errors import InputError
from training.generative.collation import padded
from training.generative.conversations import Conversation, Picture, Turn, Unfit, captioned
from training.generative.encoding import Encoder
from training.generative.packing import Budget

pytestmark = pytest.mark.usefixtures("one_thread")
DIALOGUE = talk((shown(1), "Hé?"), "A cat.", ("And ", shown(2), " now"), "Dög")


def encoder(tokens: int = 2048, tiles: int | None = None, **changes: Any) -> Encoder:
    return Encoder(llava_processor(), llava_layout(**changes), Budget(tokens, tiles))


def test_the_mask_of_a_dialogue_with_two_pictures_is_exact_token_by_token() -> None:
    encoded = encoder().encode(DIALOGUE)
    ids = encoded.inputs["input_ids"][0].tolist()

    def bytes_of(text: str) -> list[int]:
        return tokenizer()(text, add_special_tokens=False)["input_ids"]

    start, end, image = (tokenizer().convert_tokens_to_ids(t) for t in ("<|im_start|>", "<|im_end|>", "<image>"))
    written = [
        ([start, *bytes_of("user\n"), *[image] * 4, *bytes_of("Hé?"), end, *bytes_of("\n")], False),
        ([start, *bytes_of("assistant\n")], False), ([*bytes_of("A cat."), end], True), (bytes_of("\n"), False),
        ([start, *bytes_of("user\nAnd "), *[image] * 4, *bytes_of(" now"), end, *bytes_of("\n")], False),
        ([start, *bytes_of("assistant\n")], False), ([*bytes_of("Dög"), end], True), (bytes_of("\n"), False),
    ]  # fmt: skip
    assert ids == [i for piece, _ in written for i in piece]
    assert encoded.labels_T.tolist() == [i if is_answer else -100 for piece, is_answer in written for i in piece]
    assert len(bytes_of("é")) == 2  # a letter of two tokens is learnt whole
    assert encoded.label_tokens == len("A cat.") + 1 + len("Dög") + 1 + 1
    assert encoded.tiles == 2
    assert encoded.inputs["pixel_values"].shape == (2, 3, 16, 16)


def test_pictures_of_native_size_shift_the_mask_as_far_as_they_are_long() -> None:
    made = Encoder(qwen_processor(), qwen_layout(), Budget(2048))
    small, large = (made.encode(talk((shown(1, *size), "x"), "yes")) for size in ((32, 32), (64, 48)))
    assert large.tokens - small.tokens == (64 * 48 - 32 * 32) // 256
    for encoded in (small, large):
        ids = encoded.inputs["input_ids"][0]
        assert tokenizer().decode(ids[encoded.labels_T != -100]) == "yes<|im_end|>"


def test_a_decoder_of_its_own_says_the_last_answer_to_all_that_came_before() -> None:
    template = llava_processor().chat_template + "{%- if add_generation_prompt -%}>{%- endif -%}"
    made = Encoder(llava_processor(template), llava_layout(packs=False, decoder_start_id=7), Budget(2048))
    encoded = made.encode(DIALOGUE)
    answer = [*tokenizer()("Dög", add_special_tokens=False)["input_ids"], tokenizer().eos_token_id]
    assert encoded.inputs["decoder_input_ids"].tolist() == [[7, *answer]]
    assert encoded.labels_T.tolist() == [-100, *answer]
    assert tokenizer().decode(encoded.inputs["input_ids"][0]).endswith(" now<|im_end|>\n>")
    assert (encoded.tiles, encoded.label_tokens) == (2, len(answer))
    short = made.encode(talk((shown(1), "x"), "y"))
    both = padded([encoded, short], made.layout)
    assert both.inputs["decoder_input_ids"].shape == both.labels_BL.shape == (2, len(answer) + 1)
    assert both.labels_BL[1].tolist() == [*short.labels_T.tolist(), -100, -100, -100]
    assert both.inputs["input_ids"].shape == both.inputs["attention_mask"].shape == (2, encoded.tokens)


def test_a_model_that_reads_no_text_alone_is_shown_none() -> None:
    made = encoder(needs_pictures=True)
    assert made.encode(DIALOGUE).tiles == 2
    with pytest.raises(Unfit, match="talk: shows no picture, and the model reads no text alone") as raised:
        made.encode(talk("What?", "x"))
    assert raised.value.fault == "no_picture"


def test_a_video_is_shown_as_such_or_as_its_frames() -> None:
    frames = [np.full((32, 32, 3), 40 * n, np.uint8) for n in range(4)]
    video = Picture("v", lambda: frames, video=True)
    as_video = Encoder(qwen_processor(), qwen_layout(), Budget(2048)).encode(talk((video, "x"), "yes"))
    assert as_video.inputs["video_grid_thw"].tolist() == [[2, 4, 4]]  # two frames make a step of time
    as_frames = encoder().encode(talk((video, "x"), "yes"))
    assert as_frames.inputs["pixel_values"].shape[0] == as_frames.tiles == 4


def test_a_sample_is_shortened_by_whole_turns_from_its_end() -> None:
    pictures = [shown(n) for n in range(9)]
    long = talk(*(part for n, one in enumerate(pictures) for part in ((one, f"What is {n}?"), f"It is {n}.")))
    whole = encoder().encode(long)
    assert not whole.shortened
    first_three = encoder().encode(long.until(3))
    assert whole.tokens == 3 * first_three.tokens
    for most in (first_three.tokens, first_three.tokens + 10, first_three.tokens * 4 // 3 - 1):
        cut = encoder(most).encode(long)
        assert cut.shortened
        assert cut.inputs["input_ids"].tolist() == first_three.inputs["input_ids"].tolist()
        assert torch.equal(cut.inputs["pixel_values"], first_three.inputs["pixel_values"])


def test_a_sample_is_shortened_to_the_tiles_that_are_allowed() -> None:
    cut = encoder(tiles=1).encode(DIALOGUE)
    assert (cut.tiles, cut.shortened, cut.label_tokens) == (1, True, len("A cat.") + 1)


@pytest.mark.parametrize(
    ("conversation", "fault", "sentence"),
    [
        (talk((shown(1), "What?"), "x" * 99), "too_long", r"talk: up to its first answer it has 1\d\d tokens and 1 ti"),
        (talk((shown(1), shown(2), shown(3)), "x"), "too_long", "3 tiles; 60 tokens and 2 tiles are allowed"),
        (talk((shown(1), "a <image> b"), "x"), "control", "talk: a text holds the control token '<image>'"),
        (talk("What?", "x<|im_end|>"), "control", "the control token '<|im_end|>'"),
        (talk("What?"), "unanswered", "talk: nobody answers"),
        (captioned("row", None, "x", "What?"), "missing", "row: there is no picture"),
        (captioned("row", b"\xff\xd8\xff no", "x", "What?"), "broken", "row: the picture's header is broken"),
    ],
)
def test_what_cannot_be_learnt_from_says_why(conversation: Conversation, fault: str, sentence: str) -> None:
    with pytest.raises(Unfit, match=sentence.replace("|", r"\|")) as raised:
        encoder(60, 2).encode(conversation)
    assert raised.value.fault == fault


def test_an_answer_without_a_token_is_told() -> None:
    template = llava_processor().chat_template.replace("said + '<|im_end|>' -}}{%- endgen", "said -}}{%- endgen")
    made = Encoder(llava_processor(template), llava_layout(), Budget(2048))
    assert made.encode(talk("What?", "x")).label_tokens == 1
    with pytest.raises(Unfit, match="has no token to learn: its answers are empty"):
        made.encode(talk("What?", ""))


def test_the_first_token_of_a_sample_is_never_learnt_for_in_a_pack_another_sample_would_tell_it() -> None:
    template = "{%- for message in messages -%}{%- generation -%}{{- message['content'][0]['text'] -}}{%- endgeneration"
    made = Encoder(llava_processor(f"{template} -%}}{{%- endfor -%}}"), llava_layout(), Budget(2048))
    answer = Conversation("talk", (Turn("assistant", ("abc",)),))
    assert made.encode(answer).labels_T.tolist() == [-100, *tokenizer()("bc", add_special_tokens=False)["input_ids"]]


def test_what_a_processor_refuses_is_told_of_the_sample() -> None:
    template = llava_processor().chat_template.replace("<image>", "")
    with pytest.raises(Unfit, match=r"^talk: \w+Error: ") as raised:
        Encoder(llava_processor(template), llava_layout(), Budget(2048)).encode(DIALOGUE)
    assert raised.value.fault == "rejected"


def test_a_template_that_does_not_mark_answers_is_refused() -> None:
    template = re.sub(r"\{%- (end)?generation -%\}", "", llava_processor().chat_template)
    with pytest.raises(
        InputError, match=r"LlavaProcessor: its chat template does not mark answers.*\{% generation %\}"
    ):
        Encoder(llava_processor(template), llava_layout(), Budget(2048))
    with pytest.raises(InputError, match="LlavaProcessor: has no chat template; name a file"):
        Encoder(llava_processor(None), llava_layout(), Budget(2048))


def test_threads_encode_as_one_does_however_often_they_take_turns() -> None:
    made = encoder()
    dialogues = [talk((shown(n % 5), "x" * (n % 50)), "y" * (n % 7 + 1)) for n in range(300)]
    alone = [made.encode(one) for one in dialogues]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            together = list(threads.map(made.encode, dialogues))
    finally:
        sys.setswitchinterval(before)
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one.labels_T, other.labels_T)
        assert all(torch.equal(one.inputs[name], other.inputs[name]) for name in one.inputs)


def test_a_picture_that_is_shown_twice_is_read_once() -> None:
    read: list[int] = []
    one = Picture("a", lambda: (read.append(1), [np.zeros((16, 16, 3), np.uint8)])[1])
    assert encoder().encode(talk((one, one, "x"), "y")).tiles == 2
    assert read == [1]
