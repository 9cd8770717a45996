"""Rows of curated sets in the order of training: resumable, mixed by weight, held-out ones left out."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_training import COLOURS, pairs, write_set

from schemas.errors import InputError, RunError
from schemas.picture_transform import square
from training.curated_set import Cache, CuratedSet
from training.order import groups_of_epoch, next_set, order_from


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("curated") / "shapes", pairs(400), holdout=1)


def test_an_epoch_has_every_shard_once_and_each_its_own_order() -> None:
    rows = [10] * 12
    epochs = [groups_of_epoch(rows, 30, (7, 0), epoch) for epoch in (0, 1)]
    assert all(sorted(shard for group in groups for shard in group) == list(range(12)) for groups in epochs)
    assert [len(group) for group in epochs[0]] == [3] * 4
    assert epochs[0] != epochs[1]
    assert groups_of_epoch(rows, 30, (8, 0), 0) != epochs[0]


def test_the_order_from_any_row_is_the_tail_of_the_whole_order() -> None:
    rows = [5, 7, 3]

    def seen(start: int, count: int) -> list[tuple[int, tuple[int, ...], int]]:
        flat = ((e, group, int(p)) for e, group, places in order_from(rows, 6, (1, 0), start) for p in places)
        return list(itertools.islice(flat, count))

    whole = seen(0, 45)
    assert all(seen(start, 45 - start) == whole[start:] for start in range(45))
    assert len(set(whole[:15])) == 15


def test_sets_are_mixed_by_their_weights() -> None:
    seen = [0, 0, 0]
    for _ in range(100):
        seen[next_set(seen, [1.0, 3.0, 6.0])] += 1
    assert seen == [10, 30, 60]


def no_cache() -> Cache:
    return Cache(0, 1, lambda pictures: [None for _ in pictures])


def drawn(one: CuratedSet, count: int, seed: int = 0) -> list[tuple[str, str]]:
    rows = itertools.islice(one.from_row(0, 50, (seed, 0), no_cache()), count)
    return [(row.key, caption) for row, caption in rows]


def test_rows_held_out_are_never_seen(data: Path) -> None:
    one = CuratedSet(data / "manifest.json", {})
    assert one.rows == 300
    assert {key for key, _ in drawn(one, 600)} == {f"{n:032x}" for n in range(300)}


def test_captions_are_drawn_by_weight_and_missing_ones_are_passed_over(data: Path) -> None:
    one = CuratedSet(data / "manifest.json", {"caption": 0.25, "short": 0.75, "none": 5.0})
    short = [caption in COLOURS for _, caption in drawn(one, 900)]
    assert 0.68 < np.mean(short) < 0.82
    assert [c for k, c in sorted(drawn(one, 300))] != [c for k, c in sorted(drawn(one, 300, seed=1))]


def test_a_caption_column_that_is_not_there_is_refused(data: Path) -> None:
    said = "its shards have no column 'vlm' for captions; they have: caption, short, none"
    with pytest.raises(InputError, match=said):
        CuratedSet(data / "manifest.json", {"vlm": 1.0})


def test_a_shard_that_was_changed_is_refused(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "changed", pairs(20))
    tar = folder / "v1" / "shard-000000.tar"
    content = bytearray(tar.read_bytes())
    content[700] ^= 1
    tar.write_bytes(content)
    with pytest.raises(RunError, match="is not the file that"):
        drawn(CuratedSet(folder / "manifest.json", {}), 1)


def test_the_square_is_that_of_open_clip() -> None:
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    theirs = Compose([Resize(64, InterpolationMode.BICUBIC), CenterCrop(64)])
    draw = np.random.default_rng(0)
    for height, width in [(64, 64), (64, 99), (130, 64), (77, 201), (333, 100), (20, 31)]:
        pixels_HWC = draw.integers(0, 256, (height, width, 3), np.uint8)
        assert np.array_equal(square(pixels_HWC, 64), np.asarray(theirs(Image.fromarray(pixels_HWC))))


def test_a_long_strip_is_cut_before_it_is_enlarged() -> None:
    strip_HWC = np.zeros((2, 16_000, 3), np.uint8)
    strip_HWC[:, 7_990:8_010] = 255
    made_HWC = square(strip_HWC, 64)
    assert made_HWC.shape == (64, 64, 3)
    assert made_HWC.min() == 255
