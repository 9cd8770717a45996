"""Joins of values that outgrow memory, by partition: the same survivors, and no job has more than its share."""

import contextlib
import itertools
import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import run_job, write_table
from partitioned_joins_on_ray import MORTAL
from test_on_ray import Driver, address, curated_bytes, home  # noqa: F401

from curation.dedup.embeddings import vectors_by_cell
from curation.dedup.embeddings.cosine import jobs_within
from curation.dedup.embeddings.distinct_vectors import distinct
from curation.dedup.hashes import hamming as hamming_join
from curation.dedup.join import Values, pairs_of
from curation.dedup.texts import spilled_words
from curation.selection import inputs
from curation.selection.dedup import Dedup
from curation.selection.likeness import hamming, partitions, spilled_cosine
from curation.selection.step import Decision, Desk
from curation.storage.store import Store
from schemas import columns as c

D = 16
Sizes = Callable[..., None]


@pytest.fixture
def sized(monkeypatch: pytest.MonkeyPatch) -> Sizes:
    """Sets what is too large for memory, how large partitions and shares are, and what one cell may hold."""

    def set_sizes(gathered: int, partition: int = 1 << 30, share: int = 1 << 30, cell: int = 300) -> None:
        monkeypatch.setattr(inputs, "GATHERED_BYTES", gathered)
        monkeypatch.setattr(hamming, "SHARED_BYTES", gathered)
        monkeypatch.setattr(partitions, "PARTITION_BYTES", partition)
        monkeypatch.setattr(partitions, "SHARE_BYTES", share)
        monkeypatch.setattr(vectors_by_cell, "MOST_IN_ONE_CELL", cell)

    return set_sizes


def clustered(rows: int, seed: int = 0) -> np.ndarray:
    """Unit vectors in clusters of Zipf's sizes, some of them equal, and some with no direction."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((30, D))
    vectors = centres[np.minimum(random.zipf(1.5, rows), 30) - 1] + 0.4 * random.standard_normal((rows, D))
    vectors_ND = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    vectors_ND[random.integers(0, rows, rows // 8)] = vectors_ND[random.integers(0, rows, rows // 8)]
    vectors_ND[5], vectors_ND[7, 2] = 0, np.nan
    return vectors_ND


def rows_of(vectors_ND: np.ndarray, null: Sequence[int] = (3,)) -> pa.Table:
    """A table as a step sees it, in chunks of several sizes."""
    stored = [None if n in null else vector.tobytes() for n, vector in enumerate(vectors_ND)]
    keys = [f"{n * 2654435761 % 2**32:032x}" for n in range(len(stored))]
    table = pa.table({"key": keys, "by_0": pa.array(stored, pa.binary(2 * D))})
    cuts = [0, 10, 11, len(stored) // 3, len(stored)]
    return pa.concat_tables([table.slice(a, b - a) for a, b in itertools.pairwise(cuts)])


def others_of(vectors_ND: np.ndarray) -> pa.Table:
    count = len(vectors_ND)
    named = {"key": [f"other {n:04d}" for n in range(count)], "file": ["o.parquet"] * count, "row": range(count)}
    return pa.table(named | {"by_0": pa.array(vectors_ND.astype(np.float32).tolist(), pa.list_(pa.float32()))})


def told(decision: Decision) -> dict[str, Any]:
    """All that a decision says."""
    said = {name: getattr(decision, name) for name in ("reason", "duplicate_of", "row_reasons", "facts")}
    return said | {"kept": decision.kept.tolist()}


RULES = ("components", "earlier", "greedy")
SIZES = [
    {"gathered": 0},  # one share, one partition
    {"gathered": 0, "partition": 6_000, "share": 4_000},  # tiles, for some cells hold more
    {"gathered": 0, "partition": 8_000, "share": 4_000, "cell": 10**6},  # no cells: all with all, in tiles
]


@pytest.mark.parametrize("sizes", SIZES)
def test_vectors_in_partitions_have_the_survivors_that_they_have_in_memory(
    sized: Sizes, sizes: dict[str, int], tmp_path: Path
) -> None:
    rows = rows_of(clustered(800))
    for survivors in RULES:
        step = Dedup(by="v", cosine=0.9, survivors=survivors)
        sized(gathered=1 << 40, cell=sizes.get("cell", 300))
        expected = told(step.decide(rows))
        assert 100 < sum(expected["kept"]) < 700
        sized(**sizes)
        assert told(step.decide(rows, (), Desk(Store.open(tmp_path)))) == expected
    assert told(step.decide(rows)) == expected  # without a store, in a folder of the system's


@pytest.mark.parametrize("sizes", SIZES)
def test_of_another_set_vectors_in_partitions_have_the_neighbours_that_they_have_in_memory(
    sized: Sizes, sizes: dict[str, int], tmp_path: Path
) -> None:
    rows, others = rows_of(clustered(900)), [others_of(clustered(700, seed=1)), others_of(clustered(80, seed=2))]
    step = Dedup(by="v", cosine=0.92, against="o")
    sized(gathered=1 << 40, cell=sizes.get("cell", 300))
    expected = told(step.decide(rows, others))
    assert 50 < sum(expected["kept"]) < 880
    sized(**sizes)
    assert told(step.decide(rows, others, Desk(Store.open(tmp_path)))) == expected


def captions(rows: int, seed: int = 0) -> list[str | None]:
    """Captions of words of Zipf's frequencies, many of them near others, equal, without a word, or NULL."""
    random = np.random.default_rng(seed)
    found: list[str | None] = []
    for n in range(rows):
        words = [f"w{word}" for word in random.zipf(1.4, random.integers(3, 9)) % 500]
        if n > 20 and random.random() < 0.6:
            words = (found[random.integers(0, n)] or "again").split()
            words[random.integers(0, len(words))] = f"w{random.integers(0, 9)}"
        found.append(" ".join(words))
    found[3], found[4], found[5] = None, "...", "W1 w1, w2!"
    return found


def texts_of(found: list[str | None]) -> pa.Table:
    keys = [f"{n * 2654435761 % 2**32:032x}" for n in range(len(found))]
    table = pa.table({"key": keys, "by_0": pa.array(found, pa.string())})
    return pa.concat_tables([table.slice(0, 10), table.slice(10, 1), table.slice(11)])


TEXT_SIZES = [
    {"gathered": 0},
    {"gathered": 0, "partition": 10_000, "share": 3_000},  # words that are everywhere: their lists are cut into tiles
]


@pytest.mark.parametrize("sizes", TEXT_SIZES)
def test_texts_in_partitions_have_the_survivors_that_they_have_in_memory(
    sized: Sizes, sizes: dict[str, int], tmp_path: Path
) -> None:
    rows = texts_of(captions(1000))
    for survivors in RULES:
        step = Dedup(by="caption", jaccard=0.7, survivors=survivors)
        sized(gathered=1 << 40)
        expected = told(step.decide(rows))
        assert 100 < sum(expected["kept"]) < 900
        sized(**sizes)
        assert told(step.decide(rows, (), Desk(Store.open(tmp_path)))) == expected


def test_words_whose_hashes_collide_are_told_apart(
    sized: Sizes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, step = texts_of(captions(300)), Dedup(by="caption", jaccard=0.7)
    sized(gathered=1 << 40)
    expected = told(step.decide(rows))
    sized(gathered=0, partition=3_000, share=1_000)
    hashes, few = spilled_words.hashes, np.uint64(3 << 62 | 1)
    monkeypatch.setattr(spilled_words, "hashes", lambda *words: hashes(*words) & few)
    monkeypatch.setattr(spilled_words, "FREQUENT", 1)  # no word is
    assert told(step.decide(rows, (), Desk(Store.open(tmp_path)))) == expected


@pytest.mark.parametrize("sizes", TEXT_SIZES)
def test_of_another_set_texts_in_partitions_have_the_neighbours_that_they_have_in_memory(
    sized: Sizes, sizes: dict[str, int], tmp_path: Path
) -> None:
    rows, step = texts_of(captions(600)), Dedup(by="caption", jaccard=0.6, against="o")
    others = texts_of(captions(500, seed=1)).append_column("row", pa.array(range(500)))
    others = others.append_column("file", pa.array(["o.parquet"] * 500))
    sized(gathered=1 << 40)
    expected = told(step.decide(rows, [others]))
    assert 50 < sum(expected["kept"]) < 580
    sized(**sizes)
    assert told(step.decide(rows, [others], Desk(Store.open(tmp_path)))) == expected


def codes(rows: int, bits: int, seed: int = 0) -> list[int]:
    """Codes near others, many of which agree in most of their bits, and some of few ones."""
    random = np.random.default_rng(seed)
    whole = [int.from_bytes(random.bytes(bits // 8)) for _ in range(rows)]
    for n in range(20, rows):
        kind = random.integers(0, 4)
        near = whole[random.integers(0, n)]
        if kind == 0:
            whole[n] = near ^ sum(1 << int(place) for place in set(random.integers(0, bits, 3).tolist()))
        elif kind == 1:
            whole[n] = whole[0] ^ int(random.integers(0, 2**12)) << 20
        elif kind == 2:
            whole[n] = near
    whole[7:10] = [0, 1, 3]
    return whole


def codes_of(found: list[int], bits: int) -> pa.Table:
    keys = [f"{n * 2654435761 % 2**32:032x}" for n in range(len(found))]
    if bits == 64:
        return pa.table({"key": keys, "by_0": pa.array([None, *found[1:]], pa.uint64())})
    packed = [None, *(code.to_bytes(32, "big") for code in found[1:])]
    quality = pa.array([(n * 7919) % 101 + 20 for n in range(len(found))], pa.int16())
    return pa.table({"key": keys, "by_0": pa.array(packed, pa.binary()), "quality": quality})


@pytest.mark.parametrize("blocks", [0, 2])  # of which keys are made: none, or by two
@pytest.mark.parametrize(
    ("bits", "said"),
    [(64, {"within": 3}), (64, {"within": 0}), (256, {"within": 9}), (256, {"within": 12, "recall": 0.9})],
)
@pytest.mark.parametrize("against", [False, True])
def test_codes_in_partitions_have_the_survivors_and_neighbours_that_they_have_in_memory(
    sized: Sizes,
    blocks: int,
    bits: int,
    said: dict[str, Any],
    against: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hamming_join, "key_blocks", lambda *_: blocks)
    made = {"by": "phash"} if bits == 64 else {"by": "pdq", "quality": "pdq_quality"}
    step = Dedup(**made, **said, **({"against": "o"} if against else {"survivors": "components"}))
    step = step.bound({"phash": c.PHASH, "pdq": c.PDQ, "pdq_quality": c.PDQ_QUALITY})
    rows, others = codes_of(codes(700, bits), bits), []
    if against:
        theirs = codes_of(codes(700, bits)[:300] + codes(200, bits, seed=1), bits)
        named = {"file": ["o.parquet"] * 500, "row": range(500)}
        others = [pa.table({name: theirs[name] for name in theirs.column_names} | named)]
    sized(gathered=1 << 40)
    expected = told(step.decide(rows, others))
    assert 50 < sum(expected["kept"]) < 690
    assert (expected["facts"]["recall"] < 1) == ("recall" in said and blocks > 0 and not against)
    sized(gathered=0, partition=4_000)
    assert told(step.decide(rows, others, Desk(Store.open(tmp_path)))) == expected


class PartitioningDriver(Driver):
    """A driver for which every pool outgrows memory, and whose workers are killed; marks of that are in the folder."""

    def __init__(self, address: str, folder: str) -> None:  # noqa: F811
        script = Path(__file__).with_name("partitioned_joins_on_ray.py")
        command = [sys.executable, str(script), address, folder]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=script.parents[1]
        )


def test_workers_that_join_partitions_and_are_killed_decide_as_one_process_does(
    address: str,  # noqa: F811
    tmp_path: Path,
    sized: Sizes,
) -> None:
    vectors, texts = np.nan_to_num(clustered(400)).astype(np.float32), captions(400)
    rows = [
        {"url": f"http://nowhere/{n}", "caption": texts[n], "vector": vectors[n].tolist(), "code": code >> 1}
        for n, code in enumerate(codes(400, 64))
    ]
    pq.write_table(pa.table({"vector": clustered(60, seed=3).astype(np.float32).tolist()}), tmp_path / "o.parquet")
    against = {"against": str(tmp_path / "o.parquet"), "assume_equal": True}
    spec = {
        "name": "set",
        "store": str(tmp_path / "store"),
        "source": {"table": write_table(tmp_path / "pairs.parquet", rows), "rows_per_part": 60},
        "steps": [
            {"derive": {"phash": "code::UBIGINT"}},
            {"dedup": {"by": "phash", "within": 1, "survivors": "greedy"}},
            {"dedup": {"by": "caption", "jaccard": 0.7}},
            {"dedup": {"by": "vector", "cosine": 0.92}},
            {"dedup": {"by": "vector", "cosine": 0.85} | against},
        ],
        "shards": {"format": "parquet"},
    }
    sized(gathered=1 << 40, cell=100)
    run_job(spec)
    wanted = curated_bytes(tmp_path / "store")
    killed = tmp_path / "killed"
    killed.mkdir()
    with contextlib.closing(PartitioningDriver(address, str(killed))) as driver:
        answer = driver.ask(spec=spec | {"store": str(tmp_path / "on-ray")}, joins=True)
    assert curated_bytes(Path(answer["manifest"]).parents[2]) == wanted
    funnel = json.loads(Path(answer["manifest"]).read_text())["funnel"]
    assert all(step["rows_in"] - step["rows_out"] > 3 for step in funnel[2:]), funnel
    assert not list((tmp_path / "on-ray" / "tmp").iterdir())
    assert {path.name for path in killed.iterdir()} == set(MORTAL)


class Received:
    """Runs jobs one after the other and notes what each is given: in its task, and by what it reads of files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes_by_kind: dict[str, list[int]] = {}
        self._read_bytes = 0
        from_file = np.fromfile

        def counted(*what: Any, **how: Any) -> np.ndarray:
            found = from_file(*what, **how)
            self._read_bytes += found.nbytes
            return found

        monkeypatch.setattr(np, "fromfile", counted)

    def find(self, jobs: Sequence[Any], values: Values) -> Iterator[Any]:
        for job in jobs:
            given = len(pickle.dumps(job)) + sum(array.nbytes for array in values)
            self._read_bytes = 0
            yield from pairs_of([job], values)
            kind = type(getattr(job.errand, "job", job.errand)).__name__
            self.bytes_by_kind.setdefault(kind, []).append(given + self._read_bytes)


def test_no_job_is_given_more_than_its_share_of_the_vectors_however_many_there_are_and_however_they_lie(
    sized: Sizes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partition, share, sampled = 40_000, 20_000, 100
    sized(gathered=0, partition=partition, share=share)
    monkeypatch.setattr(spilled_cosine, "SAMPLED", sampled)
    received = Received(monkeypatch)
    rows = rows_of(clustered(12_000))  # nearly half of them in one cluster
    Dedup(by="v", cosine=0.95).decide(rows, (), Desk(Store.open(tmp_path), received.find))
    overhead = 10_000  # of pickling, and of the rows' validity
    shared = 2 * D * (sampled + 1.25 * 12_000**0.5 * 2)
    most = {kind: max(sizes) for kind, sizes in received.bytes_by_kind.items()}
    assert most["CollapseShare"] <= share + overhead
    assert most["GroupJob"] <= partition + overhead
    for kind in ("CollapseRange", "CellsNeeded", "Assign"):
        assert most[kind] <= 1.3 * partition + shared + overhead  # hashes fall as coins do
    assert most["Move"] <= 1.3 * partition * (1 + 4 * 4 / (2 * D)) + shared + overhead  # with four cells each
    whole = 2 * D * 12_000
    assert max(most.values()) < whole / 4
    assert len(received.bytes_by_kind["GroupJob"]) > whole / partition


def test_no_job_is_given_more_than_its_share_of_the_words_of_texts(
    sized: Sizes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partition, share = 40_000, 10_000
    sized(gathered=0, partition=partition, share=share)
    received = Received(monkeypatch)
    texts = captions(6_000)
    step = Dedup(by="caption", jaccard=0.7)
    step.decide(texts_of(texts), (), Desk(Store.open(tmp_path), received.find))
    most = {kind: max(sizes) for kind, sizes in received.bytes_by_kind.items()}
    overhead, own = 8_000, 500 * 16  # of pickling; the words that have codes of their own
    assert most["SplitShare"] <= share + overhead
    assert most["CodeShare"] <= 3 * share + own + overhead
    assert most["WordsJob"] <= partition + overhead
    assert len(received.bytes_by_kind["WordsJob"]) > 10


def test_a_spanning_forest_is_kept_for_another_order_and_all_pairs_for_another_rule(
    sized: Sizes, tmp_path: Path
) -> None:
    rows, stages = rows_of(clustered(400)).append_column("order_0", pa.array(range(400))), []

    def counted(jobs: Any, values: Any) -> Any:
        stages.append(len(jobs))
        return pairs_of(jobs, values)

    def searched(**said: Any) -> bool:
        before, step = len(stages), Dedup(by="v", **said)
        sized(gathered=0, partition=4_000, share=2_000)
        decision = step.decide(rows, (), desk)
        sized(gathered=1 << 40)
        assert decision.duplicate_of == step.decide(rows).duplicate_of
        return len(stages) - before > 2  # more than to collapse

    desk = Desk(Store.open(tmp_path), counted)
    assert searched(cosine=0.9)
    assert not searched(cosine=0.9, prefer="x")
    assert searched(cosine=0.92)
    assert searched(cosine=0.9, survivors="earlier")
    assert not searched(cosine=0.9, survivors="greedy")
    assert not searched(cosine=0.91)  # of all pairs


def test_rows_that_outgrow_memory_are_gathered_in_a_file_and_are_the_same_rows(sized: Sizes, tmp_path: Path) -> None:
    whole = rows_of(clustered(300))
    parts = [whole.slice(start, 40) for start in range(0, 300, 40)]
    for most in (1 << 40, 5_000, 0):
        sized(gathered=most)
        before = pa.total_allocated_bytes()
        found = inputs.gathered((pa.concat_tables([part]).combine_chunks() for part in parts), tmp_path / "tmp")
        assert found is not None
        assert found.equals(whole)
        assert pa.total_allocated_bytes() - before < 5_000 or most > 5_000
    assert not list((tmp_path / "tmp").iterdir())
    assert inputs.gathered([], tmp_path) is None


def test_a_job_for_a_device_that_its_worker_does_not_have_finds_the_pairs_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    vectors_UD = distinct(clustered(400))[0]
    centroids_KD = vectors_UD[:10]
    found = []
    for device in ("cpu", "cuda"):
        by_cell = vectors_by_cell.VectorsByCell.of(vectors_UD, centroids_KD, 2, device)
        jobs = jobs_within(by_cell, Fraction("0.9"), device)
        found.append([array.tolist() for block in pairs_of(jobs, by_cell.values) for array in block])
    assert found[0] == found[1]
    assert found[0]
