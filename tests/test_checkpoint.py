"""Checkpoints: whole or not there, a few of them, and nothing in them is ever run."""

import pickle
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from small_training import batch_of, learner_of, spec_of

from schemas.errors import InputError, RunError
from training.checkpoint import FOLDER, State, newest, restore, save
from training.ema import Ema
from training.loop import take_step
from training.spike_guard import SpikeGuard

IDENTITY = {"lr": 1e-3, "data": [1, 2]}


@pytest.fixture
def state(tmp_path: Path) -> State:
    """A training after one step."""
    spec = spec_of(tmp_path, tmp_path)
    learner, state, model = learner_of(spec)
    state.ema = Ema(model.network, 0.5)
    take_step(learner, state, batch_of(model, 4), spec, 1e-3, SpikeGuard([], 1.0, learner.device)).noted(state)
    return state


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / FOLDER).iterdir())


def test_a_state_comes_back_with_all_its_bits(state: State, tmp_path: Path) -> None:
    state.position, state.norms = (3, 5), [0.1, 1 / 3]
    drawn = torch.get_rng_state()
    save(state, tmp_path, IDENTITY)
    fresh = learner_of(spec_of(tmp_path, tmp_path, seed=7))[1]
    fresh.ema = Ema(fresh.network, 0.5)
    assert restore(fresh, tmp_path, IDENTITY)
    for mine, other in ((state.network, fresh.network), (state.ema, fresh.ema)):
        weights, others = (one.weights if isinstance(one, Ema) else one.state_dict() for one in (mine, other))
        assert all(torch.equal(weights[name], others[name]) for name in weights)
    for first, second in zip(state.network.parameters(), fresh.network.parameters(), strict=True):
        moments, others = state.optimizer.state[first], fresh.optimizer.state[second]
        assert all(torch.equal(moments[name], others[name]) for name in ("step", "exp_avg", "exp_avg_sq"))
    assert (fresh.step, fresh.position, fresh.norms, fresh.last_loss) == (1, (3, 5), [0.1, 1 / 3], state.last_loss)
    assert torch.equal(torch.get_rng_state(), drawn)


def test_the_newest_ones_are_kept(state: State, tmp_path: Path) -> None:
    for step in range(8, 12):
        state.step = step
        save(state, tmp_path, IDENTITY, keep=2)
    assert names(tmp_path) == ["step-000000010", "step-000000011"]
    assert newest(tmp_path) == tmp_path / FOLDER / "step-000000011"


def test_what_a_crash_left_unfinished_is_no_checkpoint(state: State, tmp_path: Path) -> None:
    save(state, tmp_path, IDENTITY)
    (tmp_path / FOLDER / ".unfinished").mkdir()
    (tmp_path / FOLDER / ".unfinished" / "__0_0.distcp").write_bytes(b"half")
    assert newest(tmp_path) == tmp_path / FOLDER / "step-000000001"
    state.step = 2
    save(state, tmp_path, IDENTITY)
    assert names(tmp_path) == ["step-000000002"]


@contextmanager
def full_disk(room_bytes: int) -> Iterator[None]:
    """Files cannot grow beyond so many bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("room_bytes", [1_000_000, 100])
def test_a_full_disk_leaves_the_last_good_checkpoint(state: State, tmp_path: Path, room_bytes: int) -> None:
    save(state, tmp_path, IDENTITY)
    state.step = 2
    said = r"step-000000002: the checkpoint cannot be written \(.*File too large.*the last good one is .*step-000000001"
    with full_disk(room_bytes), pytest.raises(RunError, match=said):
        save(state, tmp_path, IDENTITY)
    assert names(tmp_path) == ["step-000000001"]
    assert restore(state, tmp_path, IDENTITY)
    assert state.step == 1


def test_another_specification_is_refused_with_the_difference(state: State, tmp_path: Path) -> None:
    save(state, tmp_path, IDENTITY)
    said = r"another data, lr \(data: \[1, 2\] then, \[1\] now; lr: 0.001 then, null now\); name another `output`"
    with pytest.raises(InputError, match=said):
        restore(state, tmp_path, {"data": [1]})


class Evil:
    """What a stranger may have put into a checkpoint."""

    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.touched,)


@pytest.mark.parametrize("file", [".metadata", "__0_0.distcp"])
def test_nothing_in_a_checkpoint_is_run(state: State, tmp_path: Path, file: str) -> None:
    save(state, tmp_path, IDENTITY)
    path = newest(tmp_path) / file  # type: ignore[operator]
    evil, size = pickle.dumps(Evil(tmp_path / "touched")), path.stat().st_size
    path.write_bytes(evil if file == ".metadata" else evil.ljust(size, b"\0"))
    with pytest.raises(RunError, match=r"step-000000001: cannot be read .*remove it to go on from the one before it"):
        restore(state, tmp_path, IDENTITY)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("file", [".metadata", "__0_0.distcp", "record.json"])
def test_a_damaged_checkpoint_is_a_sentence(state: State, tmp_path: Path, file: str) -> None:
    save(state, tmp_path, IDENTITY)
    path = newest(tmp_path) / file  # type: ignore[operator]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RunError, match="step-000000001: cannot be read"):
        restore(state, tmp_path, IDENTITY)
