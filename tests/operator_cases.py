"""One case per operator (or per way of using it): a few rows whose outcome stands in operators_golden.json."""

import base64
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from chat_server import MODEL, Asked, chat_server

from curation.operator import Batch, Operator
from curation.operators.aesthetic_score import AestheticScore
from curation.operators.caption import Caption
from curation.operators.caption_stats import CaptionStats
from curation.operators.clip_embed import ClipEmbed
from curation.operators.clip_score import ClipScore
from curation.operators.derive import Derive
from curation.operators.download import Download
from curation.operators.image_hash import ImageHash
from curation.operators.inspect_image import InspectImage
from curation.operators.judge import Judge
from curation.operators.language import Language
from curation.operators.match_terms import MatchTerms
from curation.sample_rows import CAPTIONS

GOLDEN = Path(__file__).with_name("operators_golden.json")
TERMS = Path(__file__).with_name("match_terms.txt")
NAMES = (
    "aesthetic_score", "caption", "caption_stats", "clip_embed", "clip_score", "derive", "download", "image_hash",
    "image_hash_dhash", "image_hash_pdq", "inspect_image", "judge", "language", "match_terms",
)  # fmt: skip
HEAD = "head/aesthetic.safetensors"  # in the model's folder
BROKEN = 3  # the picture that cannot be decoded

_CLIP = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@dataclass(frozen=True)
class Case:
    """An operator, rows to try it on, and how far a float may lie from what was recorded."""

    operator: Operator
    batch: Batch
    tolerance: float = 0.0


def case(name: str, model: Path, serve: Callable[[str, bytes, int], str]) -> Case:
    """The case of that name; `model` is `tiny_clip`'s folder, `serve` puts bytes on a web and returns their URL."""
    captions = pa.array(CAPTIONS, pa.string())
    if name == "caption_stats":
        return Case(CaptionStats(), _batch({"caption": captions}))
    if name == "language":
        return Case(Language(), _batch({"caption": captions}), 1e-5)
    if name == "match_terms":
        return Case(MatchTerms(terms=str(TERMS)), _batch({"caption": captions}))
    if name == "derive":
        sql = {"aspect": "width_px / height_px", "shouted": "upper(caption)"}
        sizes = pa.array([64, None, 32], pa.int32()), pa.array([32, 32, 0], pa.int32())
        columns = {"caption": captions[:3], "width_px": sizes[0], "height_px": sizes[1]}
        return Case(Derive(columns=sql).bound({n: a.type for n, a in columns.items()}), _batch(columns))
    if name == "clip_score":
        return Case(ClipScore(), _batch({"clip_image": _vectors(0), "clip_text": _vectors(1)}))
    if name == "aesthetic_score":
        unit_ND = np.sin(1.0 + np.arange(64).reshape(4, 16) ** 1.5)
        unit_ND /= np.linalg.norm(unit_ND, axis=1, keepdims=True)
        unit_ND[3] *= 0.5  # no unit vector, and no score
        columns = {"clip_image": pa.array([row.tobytes() for row in unit_ND.astype(np.float16)], pa.binary(32))}
        return Case(AestheticScore(weights=str(model / HEAD)), _batch(columns))
    if name == "download":
        return Case(Download(allow_networks=("127.0.0.0/8",), retries=0), _batch({"url": _urls(serve)}))
    pictures = golden_pictures()
    batch = _batch({"caption": captions[: len(pictures)]}, pictures)
    if name == "clip_embed":
        return Case(ClipEmbed(model=str(model), batch_size=4, device="cpu"), batch, 1e-3)
    if name == "caption":
        return Case(Caption(url=_chat_url(), model=MODEL, prompt="Better than this: {caption}"), batch)
    if name == "judge":
        return Case(Judge(url=_chat_url(), model=MODEL, rubric="Does it fit? {caption}"), batch)
    without_caption = Batch(batch.table.select(["key"]), batch.stored)
    operators = {
        "image_hash": ImageHash(),
        "image_hash_dhash": ImageHash(kind="dhash"),
        "image_hash_pdq": ImageHash(kind="pdq"),
        "inspect_image": InspectImage(),
    }
    return Case(operators[name], without_caption)


def golden() -> dict[str, dict]:
    """What was recorded: `pictures` in base64, `outputs` by `<case>@<version>`."""
    return json.loads(GOLDEN.read_text())


def golden_pictures() -> list[bytes]:
    """The recorded pictures: JPEG, PNG, WebP, one that is cut short, and a flat one."""
    return [base64.b64decode(text) for text in golden()["pictures"]]


def record(key: str, values: dict[str, list]) -> None:
    """Add an outcome to the recorded ones, in place of those of older versions; none is ever changed."""
    found = golden()
    assert key not in found["outputs"], f"{key} is recorded; raise the operator's version"
    kept = {name: old for name, old in found["outputs"].items() if name.split("@")[0] != key.split("@")[0]}
    found["outputs"] = dict(sorted({**kept, key: values}.items()))
    GOLDEN.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def tiny_clip(folder: Path) -> Path:
    """A small CLIP and a head over 16 numbers, with weights from a formula: no generator decides their bits."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    (folder / HEAD).parent.mkdir()
    head = torch.sin(torch.arange(17, dtype=torch.float64) * 12.9898)
    save_file({"weight": head[:16].reshape(1, 16).float(), "bias": head[16:].float() + 5}, folder / HEAD)
    weights = {}
    for number, (name, tensor) in enumerate(sorted(open_clip.CLIP(**_CLIP).state_dict().items())):
        wave = 43758.5453 * torch.sin(torch.arange(1, 1 + tensor.numel(), dtype=torch.float64) * (12.9898 + number))
        weights[name] = (wave - wave.floor() - 0.5).float().reshape(tensor.shape)
    save_file(weights, folder / "open_clip_model.safetensors")
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bicubic"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": _CLIP, "preprocess_cfg": preprocess}))
    return folder


def _batch(columns: dict[str, pa.Array], stored: list[bytes] | None = None) -> Batch:
    rows = len(next(iter(columns.values())))
    keys = pa.array([f"{row:032x}" for row in range(rows)])
    return Batch(pa.table({"key": keys} | columns), stored or [None] * rows)


def _urls(serve: Callable[[str, bytes, int], str]) -> pa.Array:
    jpeg, png, webp, broken, _ = golden_pictures()
    served = [serve("/a.jpg", jpeg, 200), serve("/b.png", png, 200), serve("/c.webp", webp, 200)]
    return pa.array(
        [*served[:2], served[1], served[2], serve("/cut.jpg", broken, 200), serve("/gone.jpg", b"", 404), None]
    )


def _vectors(seed: int) -> pa.Array:
    vectors_ND = np.sin(np.arange(24).reshape(4, 6) * (1 + seed)).astype(np.float16)
    vectors_ND[3, :] *= 1 - seed  # one text vector is zero, and has no direction
    return pa.array([vector.tobytes() for vector in vectors_ND], pa.binary(12))


_STARTED = contextlib.ExitStack()


@cache
def _chat_url() -> str:
    """A server of vision-language models, there until the process ends."""
    server = _STARTED.enter_context(chat_server(key="", say=_said))
    return server.url("openai")


def _said(asked: Asked) -> str:
    """A text by the picture's bytes; of a judge a score from 1 to 8, so that some lie outside of its scale."""
    first = asked.picture[-8]
    if asked.prompt.startswith("Does it fit?"):
        return json.dumps({"reason": f"it ends in {first}", "score": 1 + first % 8})
    return f"a picture of {len(asked.picture)} bytes, once {asked.prompt[18:40]!r}"
