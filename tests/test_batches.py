"""Batches for training: the same whatever the cache and the threads, resumable, and loud where pictures are broken."""

import hashlib
import io
import itertools
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from schemas.errors import RunError
from schemas.shard import ShardWriter
from schemas.training import TrainingSpec
from training.batches import Batch, Tokens, batches
from training.curated_set import open_sets

SIDE_PX = 8
BROKEN = b"\xff\xd8\xff no picture"


def picture(number: int) -> bytes:
    """A picture of one grey, whose value names the row."""
    stream = io.BytesIO()
    Image.new("RGB", (SIDE_PX + 4, SIDE_PX), (number, number, number)).save(stream, "PNG")
    return stream.getvalue()


def write_set(folder: Path, numbers: Sequence[int], broken: Sequence[int] = (), per_shard: int = 5) -> Path:
    """A curated set whose row i has the caption `i` and a picture of grey i."""
    (folder / "v1").mkdir(parents=True)
    shards = []
    for start in range(0, len(numbers), per_shard):
        path = folder / "v1" / f"shard-{start:06d}.tar"
        with open(path, "wb") as stream, ShardWriter(stream) as writer:
            for number in numbers[start : start + per_shard]:
                stored = BROKEN if number in broken else picture(number)
                writer.add(f"{number:032x}", {"png": stored, "txt": str(number).encode()})
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
    return np.asarray([[int(caption), 1] for caption in captions])


def taken(folders: Sequence[Path], count: int, start: Sequence[int] | None = None, **changes: Any) -> list[Batch]:
    fields = {
        "name": "t", "task": "contrastive", "data": [{"set": str(folder)} for folder in folders], "model": "m",
        "batch_size": 4, "samples": 4, "shuffle_rows": 8, "cache_gb": 0,
    }  # fmt: skip
    spec = TrainingSpec.model_validate(fields | changes)
    sets = open_sets(spec.data)
    with batches(sets, spec, SIDE_PX, tokenize, start or [0] * len(sets)) as made:
        return list(itertools.islice(made, count))


def rows(found: Sequence[Batch]) -> list[int]:
    return [int(number) for batch in found for number in batch.tokens_BT[:, 0]]


def same(first: Sequence[Batch], second: Sequence[Batch]) -> bool:
    return len(first) == len(second) and all(
        (a.position, a.broken) == (b.position, b.broken)
        and np.array_equal(a.pixels_BCHW, b.pixels_BCHW)
        and np.array_equal(a.tokens_BT, b.tokens_BT)
        for a, b in zip(first, second, strict=True)
    )


def test_a_batch_holds_each_rows_picture_and_caption_together(tmp_path: Path) -> None:
    [batch] = taken([write_set(tmp_path / "a", range(10, 22))], 1)
    assert (batch.pixels_BCHW.shape, batch.pixels_BCHW.dtype) == ((4, 3, SIDE_PX, SIDE_PX), np.uint8)
    assert (batch.tokens_BT.shape, batch.tokens_BT.dtype) == ((4, 2), np.int64)
    for pixels_CHW, tokens_T in zip(batch.pixels_BCHW, batch.tokens_BT, strict=True):
        assert (pixels_CHW == tokens_T[0]).all()


def test_an_epoch_has_every_row_once_and_the_next_another_order(tmp_path: Path) -> None:
    seen = rows(taken([write_set(tmp_path / "a", range(12))], 6))
    assert sorted(seen[:12]) == sorted(seen[12:]) == list(range(12))
    assert seen[:12] != seen[12:]


def test_the_seed_decides_the_order(tmp_path: Path) -> None:
    data = [write_set(tmp_path / "a", range(12))]
    assert rows(taken(data, 3)) == rows(taken(data, 3))
    assert rows(taken(data, 3)) != rows(taken(data, 3, seed=1))


@pytest.mark.parametrize("changes", [{"cache_gb": 1.0}, {"cache_gb": 2e-6}, {"workers": 5}, {"workers": 1}])
def test_cache_and_threads_never_change_what_comes_out(tmp_path: Path, changes: dict[str, Any]) -> None:
    data = [write_set(tmp_path / "a", range(23), broken=[7])]
    assert same(taken(data, 15, **changes), taken(data, 15))


def test_a_position_goes_on_as_if_never_stopped(tmp_path: Path) -> None:
    data = [write_set(tmp_path / "a", range(17), broken=[3, 4]), write_set(tmp_path / "b", range(50, 60))]
    whole = taken(data, 14)
    assert same(taken(data, 9, whole[4].position), whole[5:])


def test_sets_are_seen_by_their_weights(tmp_path: Path) -> None:
    folders = [write_set(tmp_path / "a", range(20)), write_set(tmp_path / "b", range(50, 60))]
    data = [{"set": str(folder), "weight": weight} for folder, weight in zip(folders, (3, 1), strict=True)]
    found = taken(folders, 10, data=data)
    assert [sum(number < 50 for number in rows([batch])) for batch in found] == [3] * 10
    assert found[-1].position == (30, 10)


def test_a_broken_picture_is_left_out_and_counted(tmp_path: Path) -> None:
    found = taken([write_set(tmp_path / "a", range(12), broken=[2, 5])], 5)
    assert {2, 5}.isdisjoint(rows(found))
    assert [len(batch.tokens_BT) for batch in found] == [4] * 5
    assert sum(batch.broken for batch in found) == 4
    assert found[-1].position == (24,)


def test_a_set_of_broken_pictures_stops_the_training(tmp_path: Path) -> None:
    data = [write_set(tmp_path / "a", range(30), broken=range(15))]
    with pytest.raises(RunError, match=r"101 of \d+ pictures cannot be decoded; `pairmill verify` says"):
        taken(data, 100)


def test_a_shard_that_is_lost_on_the_way_is_told_where_it_is_missed(tmp_path: Path) -> None:
    data = write_set(tmp_path / "a", range(12))
    (data / "v1" / "shard-000005.tar").unlink()
    with pytest.raises(RunError, match=r"shard-000005\.tar: cannot be read: No such file"):
        taken([data], 3)


def test_no_thread_is_left_behind(tmp_path: Path) -> None:
    data = [write_set(tmp_path / "a", range(12))]
    before = threading.active_count()
    taken(data, 2)
    assert threading.active_count() == before


def test_a_caption_is_tokenised_once() -> None:
    asked: list[list[str]] = []

    def counting(captions: list[str]) -> np.ndarray:
        asked.append(captions)
        return tokenize(captions)

    tokens = Tokens(counting)
    assert tokens.of(["3", "4", "3"]).tolist() == [[3, 1], [4, 1], [3, 1]]
    assert tokens.of(["4", "5"]).tolist() == [[4, 1], [5, 1]]
    assert asked == [["3", "4"], ["5"]]
