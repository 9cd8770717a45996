"""What has to be equal where two trainings are compared, and one training of a comparison as an ordinary run."""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from schemas.errors import InputError
from schemas.training import TrainingSpec

_MAY_DIFFER = {
    "name", "seed", "data", "output", "workers", "cache_gb", "threads", "save_every", "keep_checkpoints", "log",
    "evaluate_every", "export", "device",
}  # fmt: skip
_WRITTEN = "results"  # of an evaluation by a command of the user's, which writes that file


def terms_of(spec: TrainingSpec, device: str) -> dict[str, Any]:
    """All that two trainings must share but the data and the seed, as JSON values; files that it names by digest.

    `device` is cpu or cuda: `precision: auto` and rounding depend on it.
    """
    said = spec.model_dump(mode="json", exclude=_MAY_DIFFER)
    captions = dict(spec.data[0].captions)
    files = {text: digest for text in sorted(set(_texts(said))) if (digest := _digest(text)) is not None}
    return said | {"steps": spec.steps, "captions": captions, "device": device, "files": files}


def require_equal_terms(where: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise InputError where a stored training was made on other terms than those it is to be compared on."""
    differing = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
    if differing:
        shown = "; ".join(f"{name}: {_short(then.get(name))} then, {_short(now.get(name))} now" for name in differing)
        raise InputError(
            f"compare: {where} was trained with another {', '.join(differing)} ({shown}), and what is trained "
            f"unequally is not compared; name another --output, or remove {where} to train it again"
        )


def training_on(spec: TrainingSpec, name: str, manifest: Path, seed: int, output: Path) -> TrainingSpec:
    """The training of one set and seed, in a folder of its own: in all else as the specification says."""
    entry = {"set": str(manifest), "captions": dict(spec.data[0].captions)}
    own = {
        "name": f"{spec.name}-{re.sub('[^a-z0-9_-]', '-', name)}-seed-{seed}", "data": [entry], "seed": seed,
        "output": str(output / name / f"seed-{seed}"),
    }  # fmt: skip
    return TrainingSpec.model_validate(spec.model_dump(mode="json") | own)


def _digest(text: str) -> str | None:
    """SHA-256 of a file, of a curated set's manifest, or of a folder's names and sizes; None for what is none of it.

    Pictures that a table names are not read: that they stay as they are is the user's to see to.
    """
    for path in (text, os.path.join(text, "manifest.json")):
        if os.path.isfile(path):  # False too for what cannot be a path
            with open(path, "rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
    if not os.path.isdir(text):
        return None
    files = sorted(path for path in Path(text).rglob("*") if path.is_file())
    listed = "".join(f"{path.relative_to(text)}\n{path.stat().st_size}\n" for path in files)
    return hashlib.sha256(listed.encode()).hexdigest()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name != _WRITTEN:
                yield from _texts(inner)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
