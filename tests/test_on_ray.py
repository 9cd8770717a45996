"""The executor on Ray, with one local Ray for all tests here: the same bytes, crashes survived, drivers killed."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SmallWeb, run_job, textured_jpeg, write_table
from operator_cases import tiny_clip
from own_operators import fate_of, opened, own_operator, seen, spec_of

from flows import ray_cluster

HERE = Path(__file__).parent
DOWNLOAD = {"download": {"allow_networks": ["127.0.0.0/8"], "retries": 0, "timeout_s": 20}}
KILL_POINTS = ["stage:1", "part:1", "part:3", "seconds:1", "shards:1"]


class Driver:
    """A process that drives Ray. This one must not: what Ray reads of the environment, it reads once."""

    def __init__(self, address: str) -> None:
        command = [sys.executable, str(HERE / "drivers_on_ray.py"), address]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE.parent
        )

    def ask(self, **what: Any) -> dict[str, Any]:
        """Its answer."""
        self.tell(**what)
        return self.answer()

    def run(self, spec: dict[str, Any]) -> Path:
        """Run a specification on Ray; the path of its manifest."""
        return Path(self.ask(spec=spec)["manifest"])

    def tell(self, **what: Any) -> None:
        """Ask, and do not wait for the answer."""
        assert self._process.stdin is not None
        print(json.dumps(what), file=self._process.stdin, flush=True)

    def answer(self) -> dict[str, Any]:
        """What it answers next."""
        assert self._process.stdout is not None
        while not (line := self._process.stdout.readline()).startswith("{"):
            assert line, "the driver is gone"
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A home folder of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAIRMILL_HOME", str(tmp_path_factory.mktemp("home")))
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module")
def address(home: None) -> Iterator[str]:
    """A local Ray."""
    local = ray_cluster.LocalRay()
    try:
        yield local.wait()
    finally:
        local.stop()


@pytest.fixture(scope="module")
def driver(address: str) -> Iterator[Driver]:
    """A driver for all runs that nobody kills."""
    driver = Driver(address)
    yield driver
    driver.close()


def picture_spec(web: SmallWeb, folder: Path, *, rows_per_part: int = 3, actor: bool = True) -> dict[str, Any]:
    """Pictures, a near duplicate and a dead link through tasks (and an actor), a barrier, two shards."""
    rows = [{"url": web.put(f"/{i}.jpg", textured_jpeg(i)), "caption": f"picture {i}"} for i in range(9)]
    rows.append({"url": web.put("/again.jpg", textured_jpeg(3, 144, 120)), "caption": "again"})
    rows.append({"url": f"{web.base_url}/dead.jpg", "caption": "dead"})
    steps = [
        DOWNLOAD,
        {"image_hash": {"kind": "phash"}},
        own_operator(folder, actor=actor),
        "caption_stats",
        {"dedup": {"by": "phash", "within": 4}},
    ]
    return {
        "name": "set",
        "store": str(folder / "store"),
        "source": {"table": write_table(folder / "pairs.parquet", rows), "rows_per_part": rows_per_part},
        "operators": [str(folder / "ops")],
        "steps": steps,
        "shards": {"rows": 5},
    }


def curated_bytes(store: Path) -> dict[str, bytes]:
    """Every file of the curated sets, but for the catalogue, which DuckDB gives an identifier of its own."""
    files = [path for path in (store / "curated").rglob("*") if path.is_file() and not path.name.startswith(".")]
    files = [path for path in files if path.suffix != ".duckdb"]
    return {str(path.relative_to(store)): path.read_bytes() for path in files}


def committed_urls(store: Path) -> set[str]:
    """URLs whose download is committed."""
    import pyarrow.parquet as pq

    urls: set[str] = set()
    for record in (store / "commits").glob("*/download-*/*.json"):
        for ledger in json.loads(record.read_text())["ledgers"]:
            urls |= set(pq.read_table(store / ledger["name"], columns=["url"])["url"].to_pylist())
    return urls


def test_a_site_is_asked_once_for_its_rules_by_all_workers_of_a_run(
    driver: Driver, web: SmallWeb, tmp_path: Path
) -> None:
    spec = picture_spec(web, tmp_path, rows_per_part=1, actor=False)
    driver.run(spec)
    assert web.asked_first == {"/robots.txt": 1, "/.well-known/tdmrep.json": 1}
    web.put("/10.jpg", textured_jpeg(10))
    more = [{"url": f"{web.base_url}/10.jpg", "caption": "another day, another picture"}]
    driver.run(spec | {"source": {"table": write_table(tmp_path / "more.parquet", more)}})
    assert web.asked["/10.jpg"] == 1
    assert sum(web.asked_first.values()) == 2  # the store knows


def test_ray_gives_the_bytes_that_one_process_gives_for_any_size_of_parts(
    driver: Driver, web: SmallWeb, tmp_path: Path
) -> None:
    spec = picture_spec(web, tmp_path)
    run_job(spec)
    wanted = curated_bytes(tmp_path / "store")
    for rows_per_part in (2, 5):
        store = tmp_path / f"parts-of-{rows_per_part}"
        source = spec["source"] | {"rows_per_part": rows_per_part}
        driver.run(spec | {"store": str(store), "source": source})
        assert curated_bytes(store) == wanted
    assert len(set(opened(tmp_path))) == 3  # once in process, and by one actor for each run on Ray


def test_actors_load_a_model_once_and_embed_as_one_process_does(driver: Driver, web: SmallWeb, tmp_path: Path) -> None:
    spec = picture_spec(web, tmp_path, rows_per_part=6)
    (tmp_path / "model").mkdir()
    model = tiny_clip(tmp_path / "model")
    spec |= {"steps": [DOWNLOAD, {"clip_embed": {"model": str(model), "batch_size": 4}}, "clip_score"]}
    run_job(spec)
    wanted = curated_bytes(tmp_path / "store")
    driver.run(spec | {"store": str(tmp_path / "on-ray")})
    assert curated_bytes(tmp_path / "on-ray") == wanted


def test_joins_as_tasks_of_the_workers_decide_as_one_process_does(driver: Driver, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    codes = [int(code) for code in rng.integers(0, 2**63, 40)] + [7, 6, 4]
    vectors = rng.normal(size=(43, 8)).astype(np.float32).tolist()
    vectors[5] = [1.001 * number for number in vectors[4]]
    words = [f"{n} {n + 1} {n + 2} {n // 2}" for n in range(43)]
    rows = [
        {"url": f"http://nowhere/{n}", "caption": words[n], "code": code, "vector": vectors[n]}
        for n, code in enumerate(codes)
    ]
    steps = [
        {"derive": {"phash": "code::UBIGINT"}},
        {"dedup": {"by": "phash", "within": 2}},
        {"dedup": {"by": "vector", "cosine": 0.99}},
        {"dedup": {"by": "caption", "jaccard": 0.5, "survivors": "greedy"}},
    ]
    spec = {
        "name": "set",
        "store": str(tmp_path / "store"),
        "source": {"table": write_table(tmp_path / "pairs.parquet", rows), "rows_per_part": 10},
        "steps": steps,
        "shards": {"format": "parquet"},
    }
    run_job(spec)
    wanted = curated_bytes(tmp_path / "store")
    answer = driver.ask(spec=spec | {"store": str(tmp_path / "on-ray")}, joins=True)
    assert curated_bytes(Path(answer["manifest"]).parents[2]) == wanted
    dropped = [
        step["rows_in"] - step["rows_out"] for step in json.loads(Path(answer["manifest"]).read_text())["funnel"]
    ]
    assert dropped[2] == 2
    assert dropped[3] == 1
    assert dropped[4] > 5


@pytest.mark.parametrize("actor", [False, True])
def test_a_worker_that_is_killed_is_survived_and_a_row_that_kills_it_fails_alone(
    driver: Driver, tmp_path: Path, actor: bool
) -> None:
    captions = [*(f"good {n}" for n in range(10)), "kill once", "kill it"]
    spec = spec_of(tmp_path, captions, [own_operator(tmp_path, actor=actor), "caption_stats"], 4)
    fates = fate_of(driver.run(spec))
    assert fates.pop("kill it") == ("failed", "steps[0] touchy", "crash")
    assert set(fates.values()) == {("curated", "", "")}
    assert (tmp_path / "kill once").exists()
    assert len(list((tmp_path / "store" / "crashes").rglob("*.json"))) == 1


def test_a_run_that_asks_for_what_no_node_has_is_refused_and_does_not_wait_for_it(
    driver: Driver, tmp_path: Path
) -> None:
    spec = spec_of(tmp_path, ["good"], [own_operator(tmp_path, actor=True)])
    said = driver.ask(spec=spec | {"execution": {"touchy": {"gpus": 100}}})["error"]
    assert said.startswith("execution: a worker asks for 100 GPU, and no node of the Ray cluster has so many")
    driver.run(spec | {"execution": {"touchy": {"cpus": 64, "memory_gb": 100_000, "actors": 2}}})
    assert seen(tmp_path) == ["good"]


@pytest.fixture
def killed(address: str, web: SmallWeb, tmp_path: Path) -> Iterator[dict[str, Path]]:
    """Stores whose run was killed, by kill point."""
    spec = picture_spec(web, tmp_path, actor=False)
    stores = {point: tmp_path / point.replace(":", "-") for point in KILL_POINTS}
    mortal = Driver(address)
    for point, store in stores.items():
        assert mortal.ask(spec=spec | {"store": str(store)}, killed_at=point) == {"killed": True}
    yield stores
    mortal.close()


def test_a_driver_killed_anywhere_and_run_again_gives_the_same_bytes_and_refetches_nothing_committed(
    driver: Driver, killed: dict[str, Path], web: SmallWeb, tmp_path: Path
) -> None:
    spec = picture_spec(web, tmp_path, actor=False)
    run_job(spec)
    wanted = curated_bytes(tmp_path / "store")
    committed = {point: committed_urls(store) for point, store in killed.items()}
    assert [len(urls) > 0 for point, urls in committed.items() if point[:4] in ("part", "shar")] == [True] * 3
    for point, store in killed.items():
        web.asked = Counter()
        driver.run(spec | {"store": str(store)})
        assert curated_bytes(store) == wanted, point
        assert not {f"{web.base_url}{path}" for path in web.asked} & committed[point], point


@pytest.mark.parametrize("actor", [False, True])
def test_where_ray_itself_ends_under_a_run_the_run_says_so(home: None, tmp_path: Path, actor: bool) -> None:
    local = ray_cluster.LocalRay()
    driver = Driver(local.wait())
    try:
        spec = spec_of(tmp_path, ["good", "sleep"], [own_operator(tmp_path, actor=actor)], 1)
        driver.tell(spec=spec)
        wait_for(tmp_path / "touchy.seen")
        local.stop()
        said = driver.answer()["error"]
    finally:
        local.stop()
        driver.close()
    assert said.startswith("Ray ended under the run (")
    assert "run the same again" in said


def wait_for(path: Path) -> None:
    """Wait until a file is there."""
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
