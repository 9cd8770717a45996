"""The stall meter: which part of the way from the disk to the model is the slow one."""

import itertools
import time
from pathlib import Path

import numpy as np
import pytest
from small_sets import SIDE_PX, small_spec, tokenize, write_set

from training import curated_set, decoding
from training.batches import batches
from training.curated_set import open_sets
from training.stalls import Stalls

SLOW_S = 0.02


def slowest(folder: Path, *, model_s: float = 0.0, slow_tokens: bool = False) -> str:
    """What the meter says of eight steps, after the batches that were made ahead are used up."""
    spec = small_spec([folder], workers=1)

    def tokens(captions: list[str]) -> np.ndarray:
        time.sleep(SLOW_S if slow_tokens else 0)
        return tokenize(captions)

    with batches(open_sets(spec.data), spec, SIDE_PX, tokens, [0]) as made:
        total = Stalls()
        for number, batch in enumerate(itertools.islice(made, 14)):
            if number == 6:
                began = time.perf_counter()
            elif number > 6:
                total += batch.stalls
            time.sleep(model_s)
        return total.slowest(time.perf_counter() - began)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_set(tmp_path / "a", range(1, 81), per_shard=4)


def test_a_slow_model_waits_for_nothing(folder: Path) -> None:
    assert slowest(folder, model_s=0.2) == "model"


def test_slow_decoding_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = decoding.decode
    monkeypatch.setattr(decoding, "decode", lambda *asked: (time.sleep(SLOW_S), decode(*asked))[1])
    assert slowest(folder) == "decode"


def test_slow_reading_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_file = curated_set.read_file
    monkeypatch.setattr(curated_set, "read_file", lambda place: (time.sleep(4 * SLOW_S), read_file(place))[1])
    assert slowest(folder) == "read"


def test_slow_tokenising_is_named(folder: Path) -> None:
    assert slowest(folder, slow_tokens=True) == "tokenise"


def test_seconds_are_recorded_by_the_name_of_their_part() -> None:
    stalls = Stalls(read_s=1, wait_s=0.25)
    with stalls.timed("read_s"):
        pass
    assert stalls.record() == {"read_s": 1.0, "decode_s": 0.0, "tokenise_s": 0.0, "agree_s": 0.0, "wait_s": 0.25}
    assert (stalls.slowest(6.0), stalls.slowest(4.0)) == ("model", "read")
