"""A vision-language model of transformers' own kind in a local folder, as `save_pretrained` writes it.

Answers are greedy. The last pass is padded to the batch size, and prompts to a multiple of some tokens: another shape
of a pass gives other bits, which may turn a word where two are about as likely. B rows of one pass, T tokens.
"""

import contextlib
import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from curation.models.chat.question import Answer, Answers, Question, Questions
from curation.models.clip_model import sha256_of
from curation.operator import Failure
from schemas.errors import InputError, RunError
from schemas.pixels import DecodeError, decode

_OF_A_MODEL = (".safetensors", ".bin", ".json", ".txt", ".model", ".jinja")
_MULTIPLE_OF_TOKENS = 64


def require_folder(folder: str) -> None:
    """Raise InputError where there is no folder with a model, its weights and its processor."""
    path = Path(folder)
    if not (path / "config.json").is_file():
        raise InputError(f"weights: {folder}: holds no config.json; name a folder as save_pretrained writes it")
    names = [file.name for file in path.iterdir()]
    if not any(name.endswith((".safetensors", ".bin")) for name in names):
        raise InputError(f"weights: {folder}: holds no weights (.safetensors, .bin)")
    if not {"processor_config.json", "preprocessor_config.json"} & set(names):
        raise InputError(f"weights: {folder}: holds no processor; save it beside the model: processor.save_pretrained")


def folder_digest(folder: str) -> str:
    """SHA-256 over the weights, configuration, tokenizer and chat template of a folder."""
    files = sorted(file for file in Path(folder).iterdir() if file.suffix in _OF_A_MODEL and file.is_file())
    return hashlib.sha256(json.dumps([(file.name, sha256_of(file)) for file in files]).encode()).hexdigest()


class _TooLong(ValueError):
    """A prompt that leaves the model no room for an answer."""


class LocalModel:
    """A model on its device, with its processor. Raises RunError where it cannot be loaded."""

    def __init__(self, folder: str, device: str, precision: str, batch_size: int, max_tokens: int) -> None:
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self._torch, self._batch_size, self._max_tokens = torch, batch_size, max_tokens
        self._device = device if device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
        number_format = torch.bfloat16 if precision == "bf16" else torch.float32
        try:
            with _quietly():
                self._processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
                model = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True, dtype=number_format)
                self._model = model.to(self._device).eval()
        except Exception as error:
            raise RunError(
                f"weights: {folder}: cannot be loaded on {self._device}: {type(error).__name__}: {error}; wanted is a "
                "folder that AutoModelForImageTextToText and AutoProcessor load"
            ) from error
        if not getattr(self._processor, "chat_template", None):
            raise RunError(f"weights: {folder}: its processor has no chat template; save one with it")
        self._processor.tokenizer.padding_side = "left"  # what is written follows the prompt
        if self._processor.tokenizer.pad_token is None:
            self._processor.tokenizer.pad_token = self._processor.tokenizer.eos_token
        self._context = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        self._ends = _token_ids(self._model.generation_config.eos_token_id)

    def answered(self, questions: Questions) -> Answers:
        """The answers, pass by pass; rows whose picture cannot be decoded fail alone."""
        while some := list(itertools.islice(questions, self._batch_size)):
            asked: list[tuple[int, str, Image.Image]] = []
            for row, question in some:
                seen = question if isinstance(question, Failure) else _seen(question)
                if isinstance(seen, Failure):
                    yield row, seen
                else:
                    asked.append((row, *seen))
            if asked:
                rows, prompts, pictures = zip(*asked, strict=True)
                yield from zip(rows, self._pass([*prompts], [*pictures]), strict=True)

    def _pass(self, prompts: list[str], pictures: list[Image.Image]) -> Sequence[Answer | Failure]:
        """One pass of exactly the batch size; a row that cannot be made ready for the model fails alone."""
        try:
            inputs = self._inputs(prompts, pictures)
        except Exception as error:  # one picture or prompt, of a form that the processor does not take
            if len(prompts) == 1:
                status = "too_long" if isinstance(error, _TooLong) else "error"
                return [Failure(status, str(error) if status == "too_long" else f"{type(error).__name__}: {error}")]
            return [self._pass([prompt], [picture])[0] for prompt, picture in zip(prompts, pictures, strict=True)]
        with self._torch.inference_mode():
            written_BT = self._model.generate(
                **inputs.to(self._device, dtype=self._model.dtype), do_sample=False, num_beams=1,
                max_new_tokens=self._max_tokens, pad_token_id=self._processor.tokenizer.pad_token_id,
            )  # fmt: skip
        read_B = inputs["attention_mask"].sum(dim=1).tolist()
        new_BT = written_BT[:, inputs["input_ids"].shape[1] :].tolist()
        return [self._answer(*one) for one in zip(new_BT, read_B, strict=True)][: len(prompts)]

    def _inputs(self, prompts: list[str], pictures: list[Image.Image]) -> Any:
        """What the model reads. Control words in a prompt, such as `<image>`, are plain text: columns may hold any."""
        conversations = [_conversation(*one) for one in zip(prompts, pictures, strict=True)]
        padding = self._batch_size - len(prompts)
        inputs = self._processor.apply_chat_template(
            conversations + conversations[-1:] * padding,
            add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
            sanitize_control_tokens=True,
            processor_kwargs={"padding": True, "pad_to_multiple_of": _MULTIPLE_OF_TOKENS},
        )  # fmt: skip
        longest = int(inputs["attention_mask"].sum(dim=1).max())
        if self._context is not None and longest + self._max_tokens > self._context:
            raise _TooLong(
                f"prompt and picture take {longest} tokens and the answer up to {self._max_tokens}; the model has room "
                f"for {self._context}"
            )
        return inputs

    def _answer(self, tokens: list[int], read: int) -> Answer:
        end = next((place for place, token in enumerate(tokens) if token in self._ends), None)
        said = tokens if end is None else tokens[:end]
        text = self._processor.tokenizer.decode(said, skip_special_tokens=True)
        return Answer(text, read, len(said), "length" if end is None else "end")


def _seen(question: Question) -> tuple[str, Image.Image] | Failure:
    try:
        return question.prompt, Image.fromarray(decode(question.picture))
    except DecodeError as error:
        return Failure(error.status, str(error))


def _conversation(prompt: str, picture: Image.Image) -> list[dict[str, Any]]:
    content = [{"type": "image", "image": picture}, {"type": "text", "text": prompt}]
    return [{"role": "user", "content": content}]


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Load without the bars of transformers."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _token_ids(ids: int | list[int] | None) -> set[int]:
    return set() if ids is None else {ids} if isinstance(ids, int) else set(ids)
