"""Batches of conversations: the same for any threads and ranks, resumed within a window, loud about faults."""

import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from small_sets import BROKEN, picture, write_set
from tiny_processors import llava_layout, llava_processor, tokenizer

from schemas.errors import InputError, RunError
from schemas.generative import Stage
from training.agreement import Agreement
from training.generative import batches as batches_file
from training.generative import measuring
from training.generative.batches import GenerativeBatch, batches
from training.generative.encoding import Encoder
from training.generative.mixture import open_sources
from training.generative.packing import Budget

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS: dict[str, Any] = {"train": ["connector"], "steps": 1, "batch_size": 4, "lr": 1e-3, "max_tokens": 256}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Captions 0 to 99, of which some have broken pictures; conversations 100 to 139 of several lengths."""
    folder = tmp_path_factory.mktemp("data")
    curated = write_set(folder / "set", range(100), broken=[3, 40, 77], per_shard=20)
    entries = []
    for number in range(100, 140):
        (folder / f"{number}.png").write_bytes(picture(number))
        long = "why " * (number % 7 * 8)
        turns = [{"from": "human", "value": f"<image>{long}?"}, {"from": "gpt", "value": f"{number}"}]
        entries.append({"image": f"{number}.png", "conversations": turns})
    entries[5]["image"] = "away.png"
    entries[9]["conversations"] = [{"from": "human", "value": "<image>?"}, {"from": "gpt", "value": "<pad>"}]
    entries[11]["conversations"][0]["value"] = "<image>" + "long " * 100
    (folder / "mix.json").write_text(json.dumps(entries))
    (folder / "broken.png").write_bytes(BROKEN)
    prompts = ["What?", "Describe the image in as many words as you like.", "Say."]
    return [
        {"set": str(curated), "weight": 2, "prompts": prompts},
        {"instructions": str(folder / "mix.json"), "images": str(folder)},
    ]


def taken(
    data: Sequence[dict[str, Any]],
    count: int,
    position: Sequence[int] = (),
    *,
    workers: int = 2,
    refused: Sequence[str] = (),
    rank: int = 0,
    ranks: int = 1,
    seed: int = 0,
    tiles: int | None = None,
    **changes: Any,
) -> list[GenerativeBatch]:
    """The first batches after a position."""
    stage = Stage.model_validate(SETTINGS | {"data": data, "max_pack_tiles": tiles} | changes)
    encoder = Encoder(llava_processor(), llava_layout(), Budget(stage.max_tokens, stage.max_pack_tiles))
    how: dict[str, Any] = {"seed": seed, "workers": workers, "refused": refused, "rank": rank, "ranks": ranks}
    with batches(open_sources(stage.data), stage, encoder, position, **how) as made:
        return list(itertools.islice(made, count))


def answers(found: Sequence[GenerativeBatch]) -> list[int]:
    """Which samples batches hold, by their answers."""
    said = [
        tokenizer().decode(part.inputs["input_ids"][part.labels_BL != -100]) for batch in found for part in batch.parts
    ]
    return [int(one) for text in said for one in text.split("<|im_end|>")[:-1]]


def facts(batch: GenerativeBatch) -> tuple[Any, ...]:
    return batch.position, batch.label_tokens, batch.tokens, batch.samples, batch.left_out


def same(first: Sequence[GenerativeBatch], second: Sequence[GenerativeBatch]) -> bool:
    """Whether batches are equal in all but how long they took."""
    return len(first) == len(second) and all(
        facts(a) == facts(b) and len(a.parts) == len(b.parts) and all(map(_same_part, a.parts, b.parts))
        for a, b in zip(first, second, strict=True)
    )


def _same_part(a: Any, b: Any) -> bool:
    return (
        a.tokens == b.tokens
        and torch.equal(a.labels_BL, b.labels_BL)
        and set(a.inputs) == set(b.inputs)
        and all(torch.equal(value, b.inputs[name]) for name, value in a.inputs.items())
    )


@pytest.mark.parametrize("pack", [False, True])
def test_an_epoch_has_every_sample_once_and_what_is_at_fault_is_counted(data: list[dict[str, Any]], pack: bool) -> None:
    found = taken(data, 50, pack=pack)
    seen = Counter(answers(found))
    end = found[-1].position
    rows, conversations = end[0] // 100, end[1] // 40
    assert rows >= 1
    sound = {*range(140)} - {3, 40, 77, 105, 109, 111}
    assert set(seen) <= sound
    for number in sound:  # what comes after the position of the last window may be of another epoch
        assert seen[number] >= (rows if number < 100 else conversations)
    left_out = sum((batch.left_out for batch in found), Counter())
    assert left_out["broken"] >= 3 * rows
    assert left_out["missing"] >= conversations
    assert left_out["control"] >= conversations
    assert left_out["too_long"] >= conversations
    assert sum(seen.values()) == sum(batch.samples for batch in found)


def test_sources_are_seen_by_their_weights(data: list[dict[str, Any]]) -> None:
    found = taken(data, 16)
    assert found[15].position[2] == 0
    assert found[15].position[0] == pytest.approx(2 * found[15].position[1], abs=2)


@pytest.mark.parametrize("changes", [{"pack": True}, {"pack": False}, {"pack": True, "tiles": 3}])
def test_threads_never_change_what_comes_out(
    data: list[dict[str, Any]], changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = taken(data, 20, workers=1, **changes)
    assert same(taken(data, 20, workers=5, **changes), found)
    monkeypatch.setattr(measuring, "_AT_ONCE", 7)  # nor how many are drawn at once
    assert same(taken(data, 20, workers=3, **changes), found)
    assert not same(taken(data, 20, seed=1, **changes), found)


@pytest.mark.parametrize(("pack", "ranks", "size"), [(True, 1, 4), (False, 1, 8), (True, 2, 20), (False, 4, 4)])
def test_after_any_step_the_next_batch_is_the_one_that_would_have_come(
    data: list[dict[str, Any]], pack: bool, ranks: int, size: int
) -> None:
    how: dict[str, Any] = {"pack": pack, "batch_size": size, "rank": ranks - 1, "ranks": ranks}
    whole = taken(data, 20 if size < 20 else 4, **how)
    for step in (0, 2, 3, 4, 15, 17):  # in the middle of windows, and at their ends
        if step + 1 < len(whole):
            assert same(taken(data, 1, whole[step].position, **how), whole[step + 1 : step + 2])


def test_a_position_in_the_middle_of_a_window_counts_its_batches(data: list[dict[str, Any]]) -> None:
    positions = [batch.position for batch in taken(data, 5, pack=True)]
    assert positions[:3] == [(0, 0, 1), (0, 0, 2), (0, 0, 3)]
    assert positions[3][2] == 0
    assert positions[4] == (*positions[3][:2], 1)


def test_packs_are_full_and_within_their_budget_of_tiles(data: list[dict[str, Any]]) -> None:
    found = taken(data, 12, pack=True, max_tokens=512)
    for batch in found:
        [part] = batch.parts
        assert part.labels_BL.shape == (4, 512)
        assert batch.tokens >= 0.95 * 4 * 512
    for batch in taken(data, 12, pack=True, max_tokens=512, tiles=3):
        assert len(batch.parts[0].inputs["pixel_values"]) <= 4 * 3


def test_padded_batches_hold_samples_of_similar_length(data: list[dict[str, Any]]) -> None:
    found = taken(data, 32)
    stored = sum(part.labels_BL.numel() for batch in found for part in batch.parts)
    assert sum(batch.tokens for batch in found) >= 0.9 * stored


def joined(of_ranks: Sequence[Sequence[GenerativeBatch]]) -> list[tuple[Any, ...]]:
    """For each step what is the same on all ranks, and the samples of all of them."""
    steps = list(zip(*of_ranks, strict=True))
    assert all(facts(one) == facts(step[0]) for step in steps for one in step)
    return [(*facts(step[0]), sorted(answers(step))) for step in steps]


def taken_together(monkeypatch: pytest.MonkeyPatch, ranks: int, take: Callable[..., Any]) -> list[Any]:
    """What each rank takes, in threads that tell each other over one store."""
    from torch.distributed import HashStore

    store = HashStore()
    monkeypatch.setattr(batches_file, "agreement", lambda rank, ranks: Agreement(store, rank, ranks))
    with ThreadPoolExecutor(ranks) as threads:
        return [one.result() for one in [threads.submit(take, rank=rank, ranks=ranks) for rank in range(ranks)]]


@pytest.mark.parametrize(("ranks", "accumulate"), [(2, 1), (4, 1), (2, 2)])
@pytest.mark.parametrize("pack", [False, True])
def test_ranks_share_the_samples_of_one(
    data: list[dict[str, Any]], ranks: int, accumulate: int, pack: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = joined([taken(data, 12, pack=pack)])

    def take(rank: int, ranks: int) -> list[GenerativeBatch]:
        return taken(data, 12, rank=rank, ranks=ranks, pack=pack, accumulate=accumulate)

    apart = [take(rank, ranks) for rank in range(ranks)]
    assert all(len(batch.parts) == accumulate for one in apart for batch in one)
    assert joined(apart) == whole
    together = taken_together(monkeypatch, ranks, take)
    assert all(map(same, together, apart))


def test_ranks_have_nearly_equal_tokens(data: list[dict[str, Any]]) -> None:
    apart = [taken(data, 8, batch_size=32, rank=rank, ranks=2) for rank in range(2)]
    for first, second in zip(*apart, strict=True):
        tokens = [sum(part.tokens for part in batch.parts) for batch in (first, second)]
        assert sum(tokens) == first.tokens
        assert max(tokens) / min(tokens) < 1.1


def test_a_fault_that_is_refused_stops_with_its_sentence(data: list[dict[str, Any]]) -> None:
    with pytest.raises(RunError, match=r"^missing: .*mix\.json entry 6.*|^missing: .*away\.png: cannot be read"):
        taken(data, 60, refused=["missing"])
    with pytest.raises(RunError, match=r"too_long: .*mix\.json entry 12: up to its first answer it has \d+ tokens"):
        taken(data, 60, refused=["too_long"])


def test_every_rank_stops_at_a_fault_that_is_refused(
    data: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def take(rank: int, ranks: int) -> str:
        with pytest.raises(RunError) as raised:
            taken(data, 60, rank=rank, ranks=ranks, refused=["too_long"])
        return str(raised.value)

    told = taken_together(monkeypatch, 2, take)
    assert told[0] == told[1]
    assert "entry 12" in told[0]


def test_data_that_is_mostly_at_fault_stops_the_training(tmp_path: Path) -> None:
    data = [{"set": str(write_set(tmp_path / "a", range(30), broken=range(15)))}]
    with pytest.raises(
        RunError, match=r"1\d\d of \d+ samples cannot be learnt from \(broken\), such as .*v1\.json row"
    ):
        taken(data, 100)


def test_a_step_that_cannot_be_shared_evenly_is_refused(data: list[dict[str, Any]]) -> None:
    with pytest.raises(InputError, match="batch_size 4 cannot be shared evenly by 2 processes in 4 parts each"):
        taken(data, 1, ranks=2, accumulate=4)


def test_a_family_that_cannot_pack_is_refused(data: list[dict[str, Any]]) -> None:
    stage = Stage.model_validate(SETTINGS | {"data": data, "pack": True})
    encoder = Encoder(llava_processor(), llava_layout(packs=False), Budget(256))
    with (
        pytest.raises(InputError, match="pack: this family cannot keep samples in one row apart"),
        batches(open_sources(stage.data), stage, encoder),
    ):
        pass


def test_inputs_are_moved_and_what_is_counted_stays(data: list[dict[str, Any]]) -> None:
    [batch] = taken(data, 1, pack=True)
    moved = batch.moved(lambda tensor: tensor.clone())
    assert moved.sent is not None
    for part, sent in zip(moved.parts, moved.sent, strict=True):
        assert list(sent) == list(part.inputs)
        for name, value in part.inputs.items():
            assert torch.equal(sent[name], value)
            assert sent[name].data_ptr() != value.data_ptr()
    assert (moved.parts, moved.position, moved.tokens) == (batch.parts, batch.position, batch.tokens)


def test_no_thread_is_left_behind(data: list[dict[str, Any]]) -> None:
    before = threading.active_count()
    taken(data, 2)
    assert threading.active_count() == before
