"""What has to be equal where two trainings are compared, and one training of a comparison as an ordinary run."""

import glob
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from schemas.any_training import AnyTraining
from schemas.errors import InputError
from schemas.generative import GenerativeSpec
from training.comparison.places import places_of, steps_of, with_set
from training.identity import differing

_MAY_DIFFER = {
    "name", "seed", "data", "output", "workers", "cache_gb", "threads", "save_every", "keep_checkpoints", "log",
    "evaluate_every", "export", "device",
}  # fmt: skip
_NAMING_FILES = {
    "model", "pretrained", "folder", "table", "webdataset", "parquet", "set", "classes", "templates",
    "weights", "config", "tokenizer", "template", "instructions", "images", "prompts", "annotations",
}  # fmt: skip
_EACH = "each of the sets"
_WHOLE_BYTES = 1 << 26  # so large a file is read to tell whether it is still the same


def terms_of(spec: AnyTraining, device: str) -> dict[str, Any]:
    """All that two trainings must share but the data and the seed, as JSON values; files that it names by digest.

    `device` is cpu or cuda: `precision: auto` and rounding depend on it.
    """
    said = spec.model_dump(mode="json", exclude=_MAY_DIFFER)
    if isinstance(spec, GenerativeSpec):
        said |= with_set(spec, _EACH)
    files = {text: digest for text in sorted(set(_files(said))) if (digest := _digest(text)) is not None}
    captions = dict(places_of(spec)[0].captions)
    return said | {"steps": steps_of(spec), "captions": captions, "device": device, "files": files}


def require_equal_terms(where: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise InputError where a stored training was made on other terms than those it is to be compared on."""
    names = differing(then, now)
    if names:
        shown = "; ".join(f"{name}: {_short(then.get(name))} then, {_short(now.get(name))} now" for name in names)
        raise InputError(
            f"compare: {where} was trained with another {', '.join(names)} ({shown}), and what is trained "
            f"unequally is not compared; name another --output, or remove {where} to train it again"
        )


def training_on(spec: AnyTraining, name: str, manifest: Path, seed: int, output: Path) -> AnyTraining:
    """The training of one set and seed, in a folder of its own: in all else as the specification says."""
    own = {
        "name": f"{spec.name}-{re.sub('[^a-z0-9_-]', '-', name)}-seed-{seed}", "seed": seed,
        "output": str(output / name / f"seed-{seed}"), **with_set(spec, str(manifest)),
    }  # fmt: skip
    return type(spec).model_validate(spec.model_dump(mode="json") | own)


def _files(value: Any, name: str = "") -> Iterator[str]:
    """What is said wherever files or folders may be named."""
    if isinstance(value, str):
        yield from [value] if name in _NAMING_FILES else []
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _files(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _files(inner, name)


def _digest(text: str) -> str | None:
    """Of one file its content; of a folder, a glob or a very large file the names and sizes; None for no file at all.

    Of a curated set it is the manifest. Pictures that a table names are not read: they are the user's to keep.
    """
    manifest = os.path.join(text, "manifest.json")
    if os.path.isfile(manifest):
        paths = [manifest]
    elif os.path.isdir(text):
        paths = glob.glob(os.path.join(glob.escape(text), "**"), recursive=True)
    else:
        paths = glob.glob(text)
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(f"{path}\n{os.path.getsize(path) if os.path.isfile(path) else 0}\n".encode())
        if len(paths) == 1 and os.path.isfile(path) and os.path.getsize(path) <= _WHOLE_BYTES:
            digest.update(Path(path).read_bytes())
    return digest.hexdigest() if paths else None


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
