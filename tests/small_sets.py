"""Small curated sets for tests of the loader: row i has the caption `i` and a picture of grey i."""

import hashlib
import io
import itertools
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from schemas.shard import ShardWriter
from schemas.training import TrainingSpec
from training.batches import Batch, batches
from training.curated_set import open_sets

SIDE_PX = 8
BROKEN = b"\xff\xd8\xff no picture"


def picture(number: int) -> bytes:
    """A picture of one grey, whose value names the row."""
    stream = io.BytesIO()
    Image.new("RGB", (SIDE_PX + 4, SIDE_PX), (number, number, number)).save(stream, "PNG")
    return stream.getvalue()


def write_set(
    folder: Path, numbers: Sequence[int], broken: Collection[int] = (), per_shard: int = 5, empty: Collection[int] = ()
) -> Path:
    """A curated set of those numbers; some of broken pictures, some of captions that hold nothing but spaces."""
    (folder / "v1").mkdir(parents=True)
    shards = []
    for start in range(0, len(numbers), per_shard):
        path = folder / "v1" / f"shard-{start:06d}.tar"
        with open(path, "wb") as stream, ShardWriter(stream) as writer:
            for number in numbers[start : start + per_shard]:
                stored = BROKEN if number in broken else picture(number)
                caption = "  " if number in empty else str(number)
                writer.add(f"{number:032x}", {"png": stored, "txt": caption.encode()})
        shards.append(
            {
                "tar": f"v1/{path.name}", "tar_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "tar_bytes": path.stat().st_size, "parquet": "v1/x.parquet", "parquet_sha256": "0" * 64,
                "parquet_bytes": 0, "rows": len(numbers[start : start + per_shard]),
            }
        )  # fmt: skip
    manifest = {
        "name": folder.name, "version": "v1", "rows": len(numbers), "pool": len(numbers), "columns": [],
        "shards": shards, "samples": [], "funnel": [], "spec": {}, "operators": {},
    }  # fmt: skip
    (folder / "v1.json").write_text(json.dumps(manifest))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def tokenize(captions: list[str]) -> np.ndarray:
    """int64 tokens_BT: the number that a caption says, and a 1."""
    return np.asarray([[int(caption.strip() or -1), 1] for caption in captions])


def small_spec(folders: Sequence[Path | str], **changes: Any) -> TrainingSpec:
    """A training on those sets, four pairs a step."""
    fields = {
        "name": "t", "task": "contrastive", "data": [{"set": str(folder)} for folder in folders], "model": "m",
        "batch_size": 4, "samples": 4, "shuffle_rows": 8, "cache_gb": 0,
    }  # fmt: skip
    return TrainingSpec.model_validate(fields | changes)


def taken(
    folders: Sequence[Path | str],
    count: int,
    start: Sequence[int] | None = None,
    *,
    rank: int = 0,
    ranks: int = 1,
    **changes: Any,
) -> list[Batch]:
    """The first batches after a position."""
    spec = small_spec(folders, **changes)
    sets = open_sets(spec.data)
    with batches(sets, spec, SIDE_PX, tokenize, start or [0] * len(sets), rank=rank, ranks=ranks) as made:
        return list(itertools.islice(made, count))


def rows(found: Sequence[Batch]) -> list[int]:
    """Which rows batches hold, by their captions."""
    return [int(number) for batch in found for number in batch.tokens_BT[:, 0]]


def same(first: Sequence[Batch], second: Sequence[Batch]) -> bool:
    """Whether batches are equal in all but how long they took."""
    return len(first) == len(second) and all(
        (a.position, a.broken, a.empty) == (b.position, b.broken, b.empty)
        and np.array_equal(a.pixels_BCHW, b.pixels_BCHW)
        and np.array_equal(a.tokens_BT, b.tokens_BT)
        for a, b in zip(first, second, strict=True)
    )
