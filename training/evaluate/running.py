"""Puts questions to a vision-language model, and scores what it says as if somebody had sent in the predictions.

<name>.json              the predictions, in the benchmark's own format
<name>.answers.jsonl     whose model it was, and each answer as it came: what stands here is not asked again
<name>.annotations.json  what is right, where no official file says it
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import InputError, RunError
from training.evaluate.asked import Asked
from training.evaluate.benchmark import Length, Question, load_benchmark
from training.evaluate.zeroshot import Scores
from training.run_folder import put_json

if TYPE_CHECKING:
    from training.generative.build import Built
    from training.generative.families import Family

_NEW_TOKENS: Mapping[Length, int] = {"letter": 8, "phrase": 24, "box": 48, "sentence": 64, "paragraph": 512}
_TELL_EVERY_S = 10.0
Tell = Callable[[str], None]


def evaluate(
    asked: Sequence[Asked],
    model: Path,
    device: str,
    folder: Path,
    *,
    tell: Tell = lambda _: None,
    official: bool = False,
) -> dict[str, dict[str, Any]]:
    """Scores of a saved model by the names of what is asked; predictions are left in the folder.

    Raises InputError where the model cannot be read, RunError where a picture or a user's command fails.
    """
    from training.generative.build import open_model

    built = None
    found = {}
    for one in asked:
        tell(f"evaluates {one.name}")
        if one.own is not None:
            found[one.name] = one.own.scores(model).record()
            continue
        if built is None:
            built = open_model(model)
            built.model.to(device)
        predictions = folder / f"{one.name}.json"
        put_predictions(one, built, predictions, digest_of(model), tell=tell)
        found[one.name] = _scores(one, predictions, official).record()
    return found


def _scores(asked: Asked, predictions: Path, official: bool) -> Scores:
    if asked.part:
        return Scores({"answered": len(asked.questions)})
    annotations = asked.annotations
    if isinstance(annotations, Mapping):
        file = predictions.with_suffix(".annotations.json")
        put_json(file, annotations)
        annotations = (file,)
    return load_benchmark(asked.benchmark).score(annotations, predictions, official=official)


def put_predictions(
    asked: Asked,
    built: "Built",
    predictions: Path,
    model_digest: str,
    *,
    tell: Tell = lambda _: None,
    batch_size: int = 8,
) -> None:
    """Write what the model says to each question, in the format of the benchmark. Raises InputError, RunError."""
    require_pictures(asked, built.family)
    predictions.parent.mkdir(parents=True, exist_ok=True)
    kept = predictions.with_suffix(".answers.jsonl")
    texts = _texts_in(kept, model_digest)
    keys = {question.id: _key(asked, question) for question in asked.questions}
    open_ones = [question for question in asked.questions if keys[question.id] not in texts]
    told_at, done = time.monotonic(), len(asked.questions) - len(open_ones)
    with open(kept, "a", encoding="utf-8") as stream:
        for batch, said in _answered(asked, open_ones, built, batch_size):
            for question, text in zip(batch, said, strict=True):
                texts[keys[question.id]] = text
                stream.write(json.dumps({"asked": keys[question.id], "id": question.id, "text": text}) + "\n")
            stream.flush()
            done += len(batch)
            if time.monotonic() - told_at > _TELL_EVERY_S:
                told_at = time.monotonic()
                tell(f"{asked.name}: {done:,} of {len(asked.questions):,} questions")
    entry = load_benchmark(asked.benchmark).entry
    put_json(predictions, [entry(question, texts[keys[question.id]]) for question in asked.questions])


def require_pictures(asked: Asked, family: "Family") -> None:
    """Raise InputError where a family reads no text alone, and a question has no picture."""
    without = [question.id for question in asked.questions if not question.pictures]
    if without and family.needs_pictures:
        raise InputError(f"{asked.name}: {family.name} reads no text alone, and question {without[0]} has no picture")


def digest_of(model: Path) -> str:
    """What a model's answers depend on: the digest of the files in its folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in model.resolve().iterdir() if path.is_file()):
        with open(path, "rb") as stream:
            digest.update(f"{path.name} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def _answered(
    asked: Asked, questions: Sequence[Question], built: "Built", batch_size: int
) -> Iterator[tuple[list[Question], list[str]]]:
    """Questions and answers by batches of equally many pictures and equally long answers, whatever was asked before."""
    import torch

    from training.generative.answer import generate, prompts
    from training.generative.conversations import Unfit

    device = built.model.device
    for batch in _batches(questions, 1 if built.family.stacked == "tiles" else batch_size):
        conversations = [asked.shown.conversation(question) for question in batch]
        try:
            seen = {picture: picture.read() for one in conversations for picture in one.pictures}
        except Unfit as error:
            raise RunError(f"{asked.name}: {error}") from error
        messages = [one.messages(seen, videos=bool(built.family.video)) for one in conversations]
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            tokens_BT = generate(built, prompts(built, messages), max_new_tokens=_NEW_TOKENS[batch[0].length])
        said = built.processor.tokenizer.batch_decode(tokens_BT, skip_special_tokens=True)
        yield batch, [text.strip() for text in said]


def _batches(questions: Sequence[Question], size: int) -> Iterator[list[Question]]:
    groups: dict[tuple[int, Length], list[Question]] = {}
    for question in questions:
        groups.setdefault((len(question.pictures), question.length), []).append(question)
    for group in groups.values():
        by_length = sorted(group, key=lambda question: len(question.prompt))  # stable: equal ones stay in order
        for first in range(0, len(by_length), size):
            yield by_length[first : first + size]


def _key(asked: Asked, question: Question) -> str:
    """What an answer belongs to, whatever file it was asked for."""
    pictures = [place if isinstance(place, str | Path) else repr(place) for place in question.pictures]
    told = json.dumps([question.id, question.prompt, question.length, [str(one) for one in pictures]])
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def _texts_in(path: Path, model_digest: str) -> dict[str, str]:
    """Answers of this model that were kept, by key; those of another are let go."""
    head = json.dumps({"model": model_digest})
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    if not lines or lines[0].strip() != head:
        path.write_text(f"{head}\n", encoding="utf-8")
        return {}
    whole = [line for line in lines[1:] if line.endswith("\n")]  # the last may have been cut short
    path.write_text("".join([lines[0], *whole]), encoding="utf-8")
    rows = [json.loads(line) for line in whole]
    return {row["asked"]: row["text"] for row in rows}
