"""Retrieval: which pictures a caption finds, and which captions a picture finds (recall@k, as the CLIP papers count).

Shapes: N pictures, M captions, C captions of a chunk, D numbers per embedding. Caption m is of picture owners_M[m].
A hit is any of a picture's captions among its first k. Equal scores rank by place: the first comes first.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from schemas.errors import InputError
from schemas.training import Retrieval
from training.evaluate.pictures import Picture, embed_pictures, require_finite
from training.evaluate.sources import read_examples
from training.evaluate.zeroshot import Scores

if TYPE_CHECKING:
    from training.model import Model

AT = (1, 5, 10)
_CHUNK = 1024


@dataclass(frozen=True)
class Captioned:
    """Pictures, captions, and the number of each caption's picture."""

    pictures: tuple[Picture, ...]
    captions: tuple[str, ...]
    owners: tuple[int, ...]


def read_captioned(asked: Retrieval) -> Captioned:
    """The pictures that an evaluation names, with their captions. Raises InputError where a picture has none."""
    what = f"retrieval {asked.name}"
    found = read_examples(asked, what)
    without = [example for example in found if not example.captions]
    if without:
        raise InputError(
            f"{what}: {len(without):,} of {len(found):,} pictures in {asked.place} have no caption (the first is "
            f"{without[0].picture}); captions are .txt files or members, or a column `caption`"
        )
    captions = [(caption, number) for number, example in enumerate(found) for caption in example.captions]
    texts, owners = zip(*captions, strict=True)
    return Captioned(tuple(example.picture for example in found), texts, owners)


def retrieval_scores(model: "Model", test: Captioned) -> Scores:
    """Recall at 1, 5 and 10 of a model, both ways."""
    import torch

    model.network.eval()
    with torch.inference_mode():
        chunks = [test.captions[start : start + _CHUNK] for start in range(0, len(test.captions), _CHUNK)]
        text_MD = np.concatenate([model.embed_captions(model.tokenize(list(c))).cpu().numpy() for c in chunks])
    require_finite(text_MD, "captions")
    image_ND = embed_pictures(model, test.pictures, "retrieval")
    return recalls(lambda rows: text_MD[rows] @ image_ND.T, np.asarray(test.owners), len(test.pictures))


def recalls(scores_of: Callable[[slice], np.ndarray], owners_M: np.ndarray, pictures: int) -> Scores:
    """Recall both ways; `scores_of` gives scores_CN of a chunk of captions, so that M × N never stand in memory."""
    from_text, best_N, caption_N = [], np.full(pictures, -np.inf), np.zeros(pictures, np.int64)
    for rows, s_CN in _chunks(scores_of, len(owners_M)):
        from_text.append(_ranks(s_CN, owners_M[rows]))
        own_C = s_CN[np.arange(len(s_CN)), owners_M[rows]]
        for place, (owner, score) in enumerate(zip(owners_M[rows], own_C, strict=True), rows.start):
            if score > best_N[owner]:  # of equal ones the first stays
                best_N[owner], caption_N[owner] = score, place
    from_image_N = np.zeros(pictures, np.int64)
    for rows, s_CN in _chunks(scores_of, len(owners_M)):
        places_C1 = np.arange(rows.start, rows.start + len(s_CN))[:, None]
        from_image_N += ((s_CN > best_N) | ((s_CN == best_N) & (places_C1 < caption_N))).sum(0)
    return recalls_of_ranks(from_image_N, np.concatenate(from_text))


def recalls_of_ranks(from_image_N: np.ndarray, from_text_M: np.ndarray) -> Scores:
    """Recall by the rank, from 0, of the first right caption of each picture, and of each caption's picture."""
    ranks = {"image_to_text": from_image_N, "text_to_image": from_text_M}
    return Scores({f"{way}_recall@{k}": float((found < k).mean()) for way, found in ranks.items() for k in AT})


def _ranks(scores_CN: np.ndarray, owners_C: np.ndarray) -> np.ndarray:
    own_C1 = np.take_along_axis(scores_CN, owners_C[:, None], 1)
    before = np.arange(scores_CN.shape[1]) < owners_C[:, None]
    ranks: np.ndarray = ((scores_CN > own_C1) | ((scores_CN == own_C1) & before)).sum(1)
    return ranks


def _chunks(scores_of: Callable[[slice], np.ndarray], captions: int) -> Iterator[tuple[slice, np.ndarray]]:
    for start in range(0, captions, _CHUNK):
        rows = slice(start, min(start + _CHUNK, captions))
        yield rows, scores_of(rows)
