"""Batches for training: the same whatever the cache and the threads, resumable, and loud where pictures are broken."""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_sets import SIDE_PX, rows, same, small_spec, taken, tokenize, write_set

from schemas.errors import RunError
from training import batches as batches_file
from training import decoding
from training.captions import Tokens
from training.curated_set import open_sets


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


def test_scaled_decoding_is_asked_for_twice_the_side_and_never_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int | None] = []
    decode = decoding.decode
    monkeypatch.setattr(decoding, "decode", lambda stored, least: (asked.append(least), decode(stored, least))[1])
    spec = small_spec([write_set(tmp_path / "a", range(12))])
    for one in (spec, spec.model_copy(update={"decode": "scaled"})):
        sets = open_sets(one.data)
        with batches_file.batches(sets, one, SIDE_PX, tokenize, [0]) as made:
            next(made)
        assert set(asked) == {2 * SIDE_PX if one is not spec else None}
        asked.clear()


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


def test_a_caption_of_which_nothing_is_left_is_left_out_and_counted(tmp_path: Path) -> None:
    found = taken([write_set(tmp_path / "a", range(12), broken=[5], empty=[2, 7])], 5)
    assert {2, 5, 7, -1}.isdisjoint(rows(found))
    assert (sum(batch.empty for batch in found), sum(batch.broken for batch in found)) == (4, 2)
    assert found[-1].position == (26,)


def test_a_set_of_empty_captions_stops_the_training(tmp_path: Path) -> None:
    data = [write_set(tmp_path / "a", range(30), empty=range(15))]
    with pytest.raises(RunError, match=r"101 of \d+ captions are empty once tokenised; curate with `keep: cap"):
        taken(data, 100)


def test_a_shard_cut_short_is_told_with_both_lengths(tmp_path: Path) -> None:
    data = write_set(tmp_path / "a", range(12))
    shard = data / "v1" / "shard-000005.tar"
    shard.write_bytes(shard.read_bytes()[:-512])
    with pytest.raises(RunError, match=r"shard-000005\.tar: has 10,752 bytes, .*v1\.json names 11,264; it was cut"):
        taken([data], 3)


def test_a_shard_with_a_flipped_bit_is_not_read(tmp_path: Path) -> None:
    data = write_set(tmp_path / "a", range(12))
    shard = data / "v1" / "shard-000005.tar"
    stored = bytearray(shard.read_bytes())
    stored[600] ^= 1
    shard.write_bytes(bytes(stored))
    with pytest.raises(RunError, match=r"shard-000005\.tar: is not the file that .*v1\.json names"):
        taken([data], 3)


def test_rows_held_out_are_never_seen(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "a", range(20))
    for file in folder.glob("*.json"):
        manifest = json.loads(file.read_text())
        manifest["shards"][1]["holdout"] = True
        file.write_text(json.dumps(manifest))
    assert set(rows(taken([folder], 20))) == {*range(5), *range(10, 20)}


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
