"""caption in whole runs: into shards, paid once whatever is killed, retried or specified anew; the key nowhere."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from chat_server import KEY, ChatServer, Reply, chat_server
from conftest import run_job, textured_jpeg

from curation.analytics.report.write import write_report
from curation.job import Result, Wishes
from curation.plan import build_plan
from schemas.errors import InputError, PairmillError
from schemas.pipeline import CurationSpec

ROWS = 24
HERE = Path(__file__).parent


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("TEST_KEY", KEY)
    with chat_server() as found:
        yield found


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Pictures with captions beside them; the last two are the same picture with two captions."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(ROWS):
        (folder / f"{number:02}.jpg").write_bytes(textured_jpeg(min(number, ROWS - 2)))
        (folder / f"{number:02}.txt").write_text(f"old caption {number}")
    return folder


def spec(server: ChatServer, tmp_path: Path, name: str = "set", **parameters: Any) -> dict[str, Any]:
    steps = [
        {"caption": server.step(prompt="Describe it.", concurrency=4) | parameters},
        {"keep": "vlm_caption not like '%picture 0%' and caption_prompt_tokens + caption_completion_tokens = 102"},
    ]
    return {
        "name": name, "store": str(tmp_path / "store"), "steps": steps,
        "source": {"folder": str(tmp_path / "photos"), "rows_per_part": 7},
        "shards": {"rows": 100, "caption": "vlm_caption"},
    }  # fmt: skip


def texts(result: Result, store: Path) -> dict[str, str]:
    """The captions of a curated set, by the digest of the picture beside them."""
    manifest = json.loads(result.manifest.read_text())
    found = {}
    for shard in manifest["shards"]:
        with tarfile.open(store / "curated" / manifest["name"] / shard["tar"]) as tar:
            members = {one.name: tar.extractfile(one).read() for one in tar}  # type: ignore[union-attr]
        keys = {name.partition(".")[0] for name in members}
        for key in keys:
            found[hashlib.sha256(members[f"{key}.jpg"]).hexdigest()] = members[f"{key}.txt"].decode()
    return found


def wanted(photos: Path) -> dict[str, str]:
    """What `texts` gives where all went well."""
    pictures = {hashlib.sha256(path.read_bytes()).hexdigest() for path in photos.glob("*.jpg")}
    return {sha256: f"picture {sha256[:8]}" for sha256 in pictures if not sha256.startswith("0")}


def test_new_captions_go_into_shards_and_are_paid_once(server: ChatServer, photos: Path, tmp_path: Path) -> None:
    result = run_job(spec(server, tmp_path))
    assert set(server.paid.values()) == {1}
    assert len(server.paid) == ROWS - 1  # the same picture twice is one question
    assert texts(result, tmp_path / "store") == wanted(photos)
    data = json.loads(write_report(tmp_path / "store", None, tmp_path / "report", "json").read_text())
    [tokens] = data["sections"]["cost"]["tables"]["tokens"]
    assert (tokens["step"], tokens["rows"]) == ("steps[0] caption", ROWS)
    assert tokens["read"] + tokens["written"] == 102 * ROWS


def test_another_specification_over_the_same_pictures_asks_nothing(
    server: ChatServer, photos: Path, tmp_path: Path
) -> None:
    first = run_job(spec(server, tmp_path))
    asked = len(server.begun)
    again = run_job(spec(server, tmp_path, "other", longest_side_px=5000))  # another fingerprint, equal questions
    assert len(server.begun) == asked
    assert texts(again, tmp_path / "store") == texts(first, tmp_path / "store")


def test_a_part_whose_commit_is_gone_asks_nothing(server: ChatServer, photos: Path, tmp_path: Path) -> None:
    first = run_job(spec(server, tmp_path))
    asked = len(server.begun)
    for folder in (tmp_path / "store" / "commits").glob("*/caption-*"):
        shutil.rmtree(folder)
    shutil.rmtree(tmp_path / "store" / "plans")
    assert texts(run_job(spec(server, tmp_path)), tmp_path / "store") == texts(first, tmp_path / "store")
    assert len(server.begun) == asked


def test_a_killed_run_pays_nothing_twice_but_what_was_in_flight(
    server: ChatServer, photos: Path, tmp_path: Path
) -> None:
    server.delay_s = 0.05
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(spec(server, tmp_path)))
    code = "import json, sys; from conftest import run_job; run_job(json.load(open(sys.argv[1])))"
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], cwd=HERE, env=os.environ | {"PYTHONPATH": str(HERE.parent)}
    )
    while len(server.asked) < 10 and child.poll() is None:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    before = len(server.paid)
    assert 10 <= before < ROWS - 4
    server.delay_s = 0.0
    result = run_job(spec(server, tmp_path))
    assert sum(server.paid.values()) <= ROWS - 1 + 4
    assert len(server.paid) == ROWS - 1
    assert texts(result, tmp_path / "store") == wanted(photos)


def test_rows_that_fail_are_tried_again_when_asked_for_and_the_others_are_not_paid_again(
    server: ChatServer, photos: Path, tmp_path: Path
) -> None:
    bad = {hashlib.sha256((photos / f"{number:02}.jpg").read_bytes()).hexdigest() for number in (3, 9)}
    server.always = lambda asked: Reply(500, b"no") if asked.picture_sha256 in bad else None
    first = run_job(spec(server, tmp_path, retries=0))
    [entry] = [step for step in first.funnel if step["step"] == "steps[0] caption"]
    assert entry["rows_in"] - entry["rows_out"] == 2
    server.always = lambda asked: None
    server.begun.clear()
    run_job(spec(server, tmp_path, retries=0))
    assert server.begun == []
    run_job(spec(server, tmp_path, retries=0), Wishes(retry=("server_error",)))
    assert set(server.begun) == bad
    assert set(server.paid.values()) == {1}


def test_a_wrong_key_stops_the_run_and_no_row_has_failed(
    server: ChatServer, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-another")
    with pytest.raises(PairmillError, match=r"401: Incorrect API key provided: \[key\]") as caught:
        run_job(spec(server, tmp_path))
    assert "sk-another" not in str(caught.value)
    monkeypatch.setenv("TEST_KEY", KEY)
    run_job(spec(server, tmp_path))
    assert len(server.paid) == ROWS - 1


def test_the_key_stands_in_no_file_of_the_store_and_in_no_line_that_is_printed(
    server: ChatServer, photos: Path, tmp_path: Path
) -> None:
    bad = hashlib.sha256((photos / "03.jpg").read_bytes()).hexdigest()
    echo = {"error": {"message": f"Authorization: Bearer {KEY} is fine, the picture is not"}}
    server.always = lambda asked: Reply(400, echo) if asked.picture_sha256 == bad else None
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(spec(server, tmp_path)))
    code = (
        "import json, logging, sys; logging.basicConfig(level=logging.DEBUG); from conftest import run_job\n"
        "print(run_job(json.load(open(sys.argv[1])), debug=True))"
    )
    environment = os.environ | {"PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=HERE, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert KEY not in done.stdout + done.stderr
    files = [file for file in (tmp_path / "store").rglob("*") if file.is_file()]
    assert len(files) > ROWS
    assert [file for file in files if KEY.encode() in file.read_bytes()] == []
    tables = [pq.read_table(file) for file in files if file.suffix == ".parquet"]
    assert KEY not in "".join(str(table.to_pylist()) for table in tables)
    assert "Bearer [key] is fine" in "".join(str(table.to_pylist()) for table in tables)


def plan_of(*steps: Any) -> Any:
    fields = {"name": "x", "source": {"table": "x.parquet"}, "steps": ["download", *steps]}
    return build_plan(CurationSpec.model_validate(fields), {}, captured=False)


def fingerprint(**parameters: Any) -> str:
    planned: str = plan_of({"caption": {"model": "m"} | parameters}).steps[1].base_fingerprint
    return planned


def test_a_fingerprint_knows_the_model_and_the_prompt_but_neither_server_nor_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MY_KEY", "one")
    mine = fingerprint(key_env="MY_KEY")
    monkeypatch.setenv("MY_KEY", "two")
    assert mine == fingerprint(key_env="MY_KEY") == fingerprint(url="http://h/v1", requests_per_minute=3)
    assert len({fingerprint(**one) for one in ({}, {"prompt": "x"}, {"model": "n"}, {"prompt": "x {caption}"})}) == 4


def test_a_judge_reads_the_new_captions_and_a_typo_names_what_there_is() -> None:
    judge = {"model": "m", "rubric": "Does it fit? {caption}", "as": "faithful", "reads": {"caption": "vlm_caption"}}
    plan = plan_of({"caption": {"model": "m"}}, {"judge": judge}, {"keep": "faithful_judge_score >= 4"})
    assert {"vlm_caption", "faithful_judge_reason", "faithful_status"} <= set(plan.columns)
    with pytest.raises(InputError, match=r"steps\[1\] judge: reads column 'captoin', which no earlier step adds"):
        plan_of({"judge": {"model": "m", "rubric": "{captoin}"}})
    with pytest.raises(InputError, match="names clip_image, which is an embedding"):
        plan_of({"clip_embed": {"weights": "openai"}}, {"judge": {"model": "m", "rubric": "{clip_image}"}})
    with pytest.raises(InputError, match="added by: caption"):
        plan_of({"judge": {"model": "m", "rubric": "{vlm_caption}"}})


def test_a_process_ends_though_answers_are_left_untaken(server: ChatServer) -> None:
    code = (
        "import sys; from chat_server import *; from conftest import textured_jpeg\n"
        "from curation.models.chat.question import question_about; from curation.operators.caption import Caption\n"
        "questions = ((n, question_about(textured_jpeg(n), 'x', None)) for n in range(40))\n"
        "left = [Caption(url=sys.argv[1], model=MODEL, key_env='TEST_KEY').open().answered(questions)]\n"
        "left.append(left); print(next(left[0])[0] >= 0)"
    )
    command = [sys.executable, "-c", code, server.url("openai")]
    environment = os.environ | {"PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
