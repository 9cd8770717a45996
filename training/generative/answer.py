"""What a model says about pictures: captions, and answers to questions."""

from collections.abc import Sequence
from typing import Any

from PIL import Image

from training.generative.build import Built, end_tokens


def answer(
    built: Built,
    pictures: Sequence[Image.Image],
    questions: str | Sequence[str],
    *,
    batch_size: int = 8,
    max_new_tokens: int = 64,
    use_cache: bool = True,
) -> list[str]:
    """One answer for each picture, by the most likely token each time; one question for all, or one for each.

    The answers do not depend on which pictures share a batch but for rounding.
    """
    asked = [questions] * len(pictures) if isinstance(questions, str) else list(questions)
    if len(asked) != len(pictures):
        raise ValueError(f"there are {len(pictures)} pictures, but {len(asked)} questions")
    conversations = [_conversation(picture, question) for picture, question in zip(pictures, asked, strict=True)]
    if built.family.stacked == "tiles":  # its processor puts no pictures of other shapes together
        batch_size = 1
    said: list[str] = []
    for start in range(0, len(conversations), batch_size):
        inputs = prompts(built, conversations[start : start + batch_size])
        tokens_BT = generate(built, inputs, max_new_tokens=max_new_tokens, use_cache=use_cache)
        said += built.processor.tokenizer.batch_decode(tokens_BT, skip_special_tokens=True)
    return [one.strip() for one in said]


def prompts(built: Built, conversations: Sequence[list[dict[str, Any]]]) -> Any:
    """Conversations that wait for an answer as the model's inputs, filled up at the left."""
    frames = {"do_sample_frames": False} if built.family.video else {}  # they are chosen already
    return built.processor.apply_chat_template(
        list(conversations),
        chat_template=built.processor.chat_template,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": "left", **frames, **built.family.call},
    )


def generate(built: Built, inputs: Any, *, max_new_tokens: int, use_cache: bool = True) -> Any:
    """New tokens only, `tokens_BT`, greedily; rows that ended early are filled up."""
    import torch

    length = 0 if built.family.answers_apart(built.model.config) else inputs["input_ids"].shape[1]
    with torch.inference_mode():
        tokens_BT = built.model.generate(
            **inputs.to(built.model.device),
            do_sample=False,
            num_beams=1,
            max_new_tokens=max_new_tokens,
            use_cache=use_cache,
            eos_token_id=end_tokens(built.model, built.processor) or None,
            pad_token_id=built.processor.tokenizer.pad_token_id,
        )
    return tokens_BT[:, length:]


def _conversation(picture: Image.Image, question: str) -> list[dict[str, Any]]:
    shown = {"type": "image", "image": picture.convert("RGB")}
    return [{"role": "user", "content": [shown, {"type": "text", "text": question}]}]
