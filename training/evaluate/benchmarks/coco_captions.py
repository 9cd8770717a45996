"""COCO captions: CIDEr-D, BLEU-1 to BLEU-4 and ROUGE-L of one caption per picture against people's (Chen et al. 2015).

Annotations are `captions_*.json`, or Karpathy's `dataset_coco.json`, of which the test split counts. Results are
[{"image_id", "caption"}], one for each picture. Words are as the Penn Treebank splits them, in pure Python; METEOR and
SPICE need Java and are not here. `--official` changes nothing: like coco-caption's, CIDEr-D weighs lengths in pairs of
words.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from training.evaluate.annotation_files import Text, checked, misfit, only_file, read_json
from training.evaluate.answers import read_texts
from training.evaluate.benchmark import Question, id_of
from training.evaluate.measures.bleu import bleu
from training.evaluate.measures.cider import cider_d
from training.evaluate.measures.ptb_tokens import ptb_tokens
from training.evaluate.measures.rouge_l import rouge_l
from training.evaluate.tally import Judged, mean, tally
from training.evaluate.zeroshot import Scores

_PROMPT = "Provide a one-sentence caption for the provided image."
_EXPECTED = (
    'COCO\'s {"images": [{"id"}], "annotations": [{"image_id", "caption"}]}, or Karpathy\'s {"images": [{"cocoid"}]}'
)


class _Caption(TypedDict):
    image_id: Text
    caption: Text


class _Image(TypedDict):
    id: Text
    file_name: NotRequired[str]


class _Coco(TypedDict):
    images: Annotated[list[_Image], Field(min_length=1)]
    annotations: list[_Caption]


class _Sentence(TypedDict):
    raw: str


class _KarpathyImage(TypedDict):
    cocoid: Text
    split: str
    filename: str
    sentences: list[_Sentence]


class _Karpathy(TypedDict):
    images: list[_KarpathyImage]


_COCO, _KARPATHY = TypeAdapter(_Coco), TypeAdapter(_Karpathy)


def score(annotations: Sequence[Path], predictions: Path, *, official: bool = False) -> Scores:
    """CIDEr with its interval, Bleu_1 to Bleu_4 and ROUGE_L. Raises InputError."""
    people, _ = _read(annotations)
    said = read_texts(predictions, list(people), ("image_id",), ("caption",))
    hypotheses = [ptb_tokens(said[image]) for image in people]
    references = [[ptb_tokens(text) for text in texts] for texts in people.values()]
    judged = [
        Judged(value, parsed=bool(tokens))
        for value, tokens in zip(cider_d(hypotheses, references), hypotheses, strict=True)
    ]
    found = tally(judged, "CIDEr")
    more = {f"Bleu_{n}": value for n, value in enumerate(bleu(hypotheses, references), 1)}
    more["ROUGE_L"] = mean([rouge_l(text, texts) for text, texts in zip(hypotheses, references, strict=True)])
    return replace(found, metrics={**found.metrics, **more})


def questions(annotations: Sequence[Path]) -> list[Question]:
    """One per picture, by the file's name in COCO's folder."""
    people, files = _read(annotations)
    return [Question(image, (Path(files[image]),), _PROMPT, length="sentence") for image in people]


def entry(question: Question, text: str) -> dict[str, Any]:
    """An entry of COCO's results file."""
    return {"image_id": id_of(question), "caption": text.strip()}


def _read(annotations: Sequence[Path]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Captions and file names by the pictures' ids."""
    path = only_file(annotations, _EXPECTED)
    known = read_json(path)
    if isinstance(known, dict) and "images" in known and "annotations" not in known:
        images = [row for row in checked(path, known, _KARPATHY, _EXPECTED)["images"] if row["split"] == "test"]
        files = {row["cocoid"]: row["filename"] for row in images}
        pairs = [(row["cocoid"], sentence["raw"]) for row in images for sentence in row["sentences"]]
    else:
        found = checked(path, known, _COCO, _EXPECTED)
        files = {row["id"]: row.get("file_name", row["id"]) for row in found["images"]}
        pairs = [(row["image_id"], row["caption"]) for row in found["annotations"]]
    people: dict[str, list[str]] = {image: [] for image in files}
    for image, caption in pairs:
        if image not in people:
            misfit(path, "an entry in `images` for every caption", {"image_id": image})
        people[image].append(caption)
    without = [image for image, captions in people.items() if not captions]
    if without or not people:
        misfit(path, "a caption for every picture, and pictures", without[:1])
    return people, files
