"""The executor on Ray, with one local Ray for all tests here: the same bytes, crashes survived, drivers killed."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import SmallWeb, run_job, textured_jpeg, write_table
from drivers_on_ray import run_on_ray
from operator_cases import tiny_clip
from own_operators import fate_of, opened, own_operator, seen, spec_of

from flows import ray_cluster

HERE = Path(__file__).parent
DOWNLOAD = {"download": {"allow_networks": ["127.0.0.0/8"], "retries": 0, "timeout_s": 20}}
KILL_POINTS = ["stage:1", "part:1", "part:3", "seconds:1", "shards:1"]


@pytest.fixture(scope="module")
def ray_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A local Ray that this process is connected to."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv("PAIRMILL_HOME", str(home))
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
            patch.delenv(name, raising=False)
        local = ray_cluster.LocalRay()
        try:
            address = local.wait()
            for name, value in ray_cluster.token_environment().items():
                patch.setenv(name, value)
            ray_cluster.connect(address, home, ours=True)
            yield address
        finally:
            ray_cluster.shut_down()
            local.stop()


def picture_spec(web: SmallWeb, folder: Path, rows_per_part: int = 3) -> dict[str, Any]:
    """Pictures, a near duplicate and a dead link through tasks and an actor, a barrier, and two shards."""
    rows = [{"url": web.put(f"/{i}.jpg", textured_jpeg(i)), "caption": f"picture {i}"} for i in range(9)]
    rows.append({"url": web.put("/again.jpg", textured_jpeg(3, 144, 120)), "caption": "again"})
    rows.append({"url": f"{web.base_url}/dead.jpg", "caption": "dead"})
    steps = [
        DOWNLOAD,
        {"image_hash": {"kind": "phash"}},
        own_operator(folder, actor=True),
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
    """Every file of the curated sets."""
    files = [path for path in (store / "curated").rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {str(path.relative_to(store)): path.read_bytes() for path in files}


def committed_urls(store: Path) -> set[str]:
    """URLs whose download is committed."""
    import pyarrow.parquet as pq

    urls: set[str] = set()
    for record in (store / "commits").glob("*/download-*/*.json"):
        for ledger in json.loads(record.read_text())["ledgers"]:
            urls |= set(pq.read_table(store / ledger["name"], columns=["url"])["url"].to_pylist())
    return urls


def test_ray_gives_the_bytes_that_one_process_gives_for_any_size_of_parts(
    ray_address: str, web: SmallWeb, tmp_path: Path
) -> None:
    spec = picture_spec(web, tmp_path)
    run_job(spec)
    wanted = curated_bytes(tmp_path / "store")
    for rows_per_part in (2, 5):
        store = tmp_path / f"parts-of-{rows_per_part}"
        source = spec["source"] | {"rows_per_part": rows_per_part}
        run_on_ray(spec | {"store": str(store), "source": source})
        assert curated_bytes(store) == wanted
    assert len(set(opened(tmp_path))) == 3  # once in process, and by one actor for each run on Ray


def test_actors_load_a_model_once_and_embed_as_one_process_does(
    ray_address: str, web: SmallWeb, tmp_path: Path
) -> None:
    spec = picture_spec(web, tmp_path, rows_per_part=6)
    model = tiny_clip(tmp_path / "model")
    spec |= {"steps": [DOWNLOAD, {"clip_embed": {"model": str(model), "batch_size": 4}}, "clip_score"]}
    run_job(spec)
    wanted = curated_bytes(tmp_path / "store")
    run_on_ray(spec | {"store": str(tmp_path / "on-ray")})
    assert curated_bytes(tmp_path / "on-ray") == wanted


@pytest.mark.parametrize("actor", [False, True])
def test_a_worker_that_is_killed_is_survived_and_a_row_that_kills_it_fails_alone(
    ray_address: str, tmp_path: Path, actor: bool
) -> None:
    captions = [*(f"good {n}" for n in range(10)), "kill once", "kill it"]
    spec = spec_of(tmp_path, captions, [own_operator(tmp_path, actor=actor), "caption_stats"], 4)
    fates = fate_of(run_on_ray(spec))
    assert fates.pop("kill it") == ("failed", "steps[0] touchy", "crash")
    assert set(fates.values()) == {("curated", "", "")}
    assert (tmp_path / "kill once").exists()
    if actor:
        assert seen(tmp_path).count("good 0") <= 7


@pytest.fixture
def killed(ray_address: str, web: SmallWeb, tmp_path: Path) -> dict[str, Path]:
    """Stores whose run was killed, by kill point."""
    spec = picture_spec(web, tmp_path)
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    stores = {point: tmp_path / point.replace(":", "-") for point in KILL_POINTS}
    arguments = [f"{store}={point}" for point, store in stores.items()]
    command = [sys.executable, str(HERE / "drivers_on_ray.py"), ray_address, str(tmp_path / "spec.json"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=HERE.parent)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["killed"] for line in done.stdout.splitlines() if line.startswith("{")] == [True] * 5
    return stores


def test_a_driver_killed_anywhere_and_run_again_gives_the_same_bytes_and_refetches_nothing_committed(
    killed: dict[str, Path], web: SmallWeb, tmp_path: Path
) -> None:
    spec = picture_spec(web, tmp_path)
    run_job(spec)
    wanted = curated_bytes(tmp_path / "store")
    for point, store in killed.items():
        committed = committed_urls(store)
        assert bool(committed) == (point != "stage:1") or point == "seconds:1"
        web.asked = Counter()
        run_on_ray(spec | {"store": str(store)})
        assert curated_bytes(store) == wanted, point
        assert not {f"{web.base_url}{path}" for path in web.asked} & committed, point
