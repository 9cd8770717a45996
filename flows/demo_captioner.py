"""`pairmill demo --captioner`: a vision-language model learns from the curated set, and describes what it never saw.

curated set ──> tokenizer ──> captioner ──> captions of held-out pictures ──> how often colour and shape are right
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.errors import InputError
from schemas.generative import Captions, GenerativeSpec
from schemas.manifest import read_manifest

_SHOWN, _SCORED = 6, 200


@dataclass(frozen=True)
class Described:
    """What the captioner says: its model's folder, a few captions beside the truth, and how often it is right."""

    model: Path
    captions: list[dict[str, str]]  # said, colour, shape
    scores: dict[str, float]  # share of the captions that name the colour, and the shape

    def record(self) -> dict[str, Any]:
        """As one JSON object."""
        return vars(self) | {"model": str(self.model)}


def teach_captioner(
    spec: GenerativeSpec, held_out: Path, progress: Callable[[int, int, float, float], None]
) -> Described:
    """Train as the specification says, on its first set, and describe the pictures of a folder with captions.jsonl."""
    from training.generative.build import open_model

    [entry] = spec.stages[0].data
    assert isinstance(entry, Captions)
    folder = Path(str(spec.tokenizer))
    write_tokenizer(folder, [*_captions_of(Path(entry.set) / "manifest.json"), *entry.prompts])
    model = _train(spec, progress)
    built = open_model(model)
    truth = [json.loads(line) for line in (held_out / "captions.jsonl").read_text().splitlines()[:_SCORED]]
    said = _said(built, [held_out / one["file"] for one in truth], entry.prompts[0])
    captions = [
        {"said": caption, "colour": one["colour"], "shape": one["shape"]}
        for caption, one in zip(said, truth, strict=True)
    ]
    scores = {name: share_naming(said, [one[name] for one in truth]) for name in ("colour", "shape")}
    return Described(model, captions[:_SHOWN], scores)


def share_naming(captions: Sequence[str], words: Sequence[str]) -> float:
    """Of captions, the share that has the word which stands for its picture."""
    return sum(word in caption.split() for caption, word in zip(captions, words, strict=True)) / len(captions)


def write_tokenizer(folder: Path, texts: Sequence[str]) -> None:
    """A byte-level BPE of 512 tokens made from texts, as transformers loads it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    whole = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    whole.save_pretrained(folder)


def _captions_of(manifest_path: Path) -> list[str]:
    import pyarrow.parquet as pq

    tables = [manifest_path.parent / shard.parquet for shard in read_manifest(manifest_path).training_shards]
    return [str(caption) for table in tables for caption in pq.read_table(table, columns=["caption"])[0].to_pylist()]


def _train(spec: GenerativeSpec, progress: Callable[[int, int, float, float], None]) -> Path:
    from training.generative.train import train_generative

    try:
        return train_generative(spec, progress=progress).model_folder
    except InputError:  # an earlier demo in this folder trained on another web, or for longer
        if not spec.folder.exists():
            raise
        shutil.rmtree(spec.folder)
        return train_generative(spec, progress=progress).model_folder


def _said(built: Any, files: Sequence[Path], question: str) -> list[str]:
    from PIL import Image

    from schemas.pixels import decode
    from training.generative.answer import answer

    pictures = [Image.fromarray(decode(file.read_bytes())) for file in files]
    return answer(built, pictures, question, batch_size=50, max_new_tokens=40)
