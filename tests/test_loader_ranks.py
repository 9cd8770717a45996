"""Batches on several ranks: each takes its slice of the same batches, whoever finds out which rows are at fault."""

import json
import socket
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_sets import rows, same, taken, write_set

from schemas.errors import InputError, RunError
from training import batches as batches_file
from training import decoding
from training.agreement import Agreement
from training.batches import Batch


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("sets")
    first = write_set(folder / "a", range(1, 24), broken=[3, 4, 20], empty=[9])
    return [first, write_set(folder / "b", range(50, 61), broken=[52], empty=[55])]


def joined(of_ranks: Sequence[Sequence[Batch]]) -> list[Batch]:
    """The batches of all ranks, out of their slices."""
    steps = zip(*of_ranks, strict=True)
    return [
        Batch(
            np.concatenate([one.pixels_BCHW for one in step]),
            np.concatenate([one.tokens_BT for one in step]),
            step[0].position,
            step[0].broken,
            step[0].empty,
        )
        for step in steps
    ]


def taken_together(monkeypatch: pytest.MonkeyPatch, ranks: int, data: list[Path], count: int) -> list[list[Batch]]:
    """The batches of each rank, in threads that tell each other over one store."""
    from torch.distributed import HashStore

    store = HashStore()
    monkeypatch.setattr(batches_file, "agreement", lambda rank, ranks: Agreement(store, rank, ranks))
    with ThreadPoolExecutor(ranks) as threads:
        asked = [threads.submit(taken, data, count, rank=rank, ranks=ranks) for rank in range(ranks)]
        return [one.result() for one in asked]


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_that_cannot_ask_each_other_share_the_batches_of_one(sets: list[Path], ranks: int) -> None:
    apart = [taken(sets, 12, rank=rank, ranks=ranks) for rank in range(ranks)]
    assert all(len(batch.tokens_BT) == 4 // ranks for batches in apart for batch in batches)
    assert all([b.position for b in batches] == [b.position for b in apart[0]] for batches in apart)
    assert same(joined(apart), taken(sets, 12))


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_that_tell_each_other_share_the_batches_of_one(
    sets: list[Path], ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = taken(sets, 12)
    assert same(joined(taken_together(monkeypatch, ranks, sets, 12)), whole)


def test_a_rank_decodes_its_share_only_where_others_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, counted = [write_set(tmp_path / "a", range(1, 41))], []
    decode = decoding.decode
    monkeypatch.setattr(decoding, "decode", lambda *asked: (counted.append(1), decode(*asked))[1])
    taken_together(monkeypatch, 4, data, 5)
    made = 5 + batches_file.BATCHES_AHEAD + 1  # the one whose rows are prepared beforehand
    assert 5 * 4 <= len(counted) <= made * 4  # of all ranks together; alone each would decode that many


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(step=st.integers(0, 9), ranks=st.sampled_from([1, 2, 4]), weight=st.sampled_from([0.3, 1.0, 5.0]))
def test_after_any_step_and_on_any_number_of_ranks_the_next_row_is_the_one_that_would_have_come(
    sets: list[Path], step: int, ranks: int, weight: float
) -> None:
    data = [{"set": str(sets[0]), "weight": weight}, {"set": str(sets[1])}]
    whole = taken(sets, 13, data=data)
    start = whole[step].position
    resumed = joined([taken(sets, 3, start, rank=rank, ranks=ranks, data=data) for rank in range(ranks)])
    assert same(resumed, whole[step + 1 : step + 4])


def test_no_row_is_repeated_or_missing_in_an_epoch_of_four_ranks(tmp_path: Path) -> None:
    data = [write_set(tmp_path / "a", range(1, 25))]
    seen = rows(joined([taken(data, 6, rank=rank, ranks=4) for rank in range(4)]))
    assert sorted(seen) == list(range(1, 25))


def test_a_batch_that_cannot_be_shared_evenly_is_refused(sets: list[Path]) -> None:
    with pytest.raises(InputError, match="batch_size 4 cannot be shared evenly by 3 processes; take a multiple of 3"):
        taken(sets, 1, rank=0, ranks=3)


def test_a_rank_that_is_silent_is_named() -> None:
    from torch.distributed import HashStore

    store = HashStore()
    with pytest.raises(RunError, match=r"rank 1, 2 made no batch for 0 s"):
        Agreement(store, 0, 3, patience_s=0.05).united({})


def test_rounds_leave_no_keys_behind() -> None:
    from torch.distributed import HashStore

    store = HashStore()
    two = [Agreement(store, rank, 2) for rank in range(2)]

    def many_rounds(rank: int) -> list[dict[int, str]]:
        return [two[rank].united({rank: f"{number}"}) for number in range(50)]

    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(many_rounds, range(2)))
    assert found[0] == found[1] == [{0: f"{number}", 1: f"{number}"} for number in range(50)]
    assert store.num_keys() <= 2 + 4  # the counters, and the last rounds


RANK = """
import json, sys
import torch.distributed as dist
from small_sets import rows, taken
rank, ranks, port, data = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
found = taken(data, 9, rank=rank, ranks=ranks)
print(json.dumps([[rows([one]), one.position, one.broken, one.empty, one.stalls.agree_s > 0] for one in found]))
dist.barrier()
dist.destroy_process_group()
"""


def test_two_processes_share_the_batches_of_one(sets: list[Path]) -> None:
    whole: list[Any] = [[rows([one]), list(one.position), one.broken, one.empty, True] for one in taken(sets, 9)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["2", str(port), json.dumps([str(folder) for folder in sets])]
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    code = f"import sys; sys.path[:0] = {folders!r}\n{RANK}"
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(rank), *arguments], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    first, second = (json.loads(one.communicate(timeout=100)[0].splitlines()[-1]) for one in running)
    assert [[a[0] + b[0], *a[1:]] for a, b in zip(first, second, strict=True)] == whole
    assert [one[1:] for one in first] == [one[1:] for one in second]
