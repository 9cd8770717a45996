"""`engine: img2dataset`: what it is told, what its words mean, what it refuses. And the real one."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import SmallWeb, run_job, textured_jpeg, write_table
from pydantic import ValidationError

from curation.fetch.img2dataset_engine import command_line, fetched
from curation.fetch.img2dataset_environment import img2dataset_python
from curation.fetch.img2dataset_run import Outcome
from curation.fetch.outcomes import PASSING
from curation.fetch.pictures.picture_form import PictureForm
from curation.fetch.policy import FetchPolicy
from curation.operators.download import Download
from schemas.errors import RunError


def samples(manifest: Path) -> list[dict[str, Any]]:
    """Every row of a version, ordered by key."""
    files = [manifest.parent / entry["parquet"] for entry in json.loads(manifest.read_text())["samples"]]
    return sorted((row for file in files for row in pq.read_table(file).to_pylist()), key=lambda row: row["key"])


def test_its_command_line_says_what_the_specification_says() -> None:
    form = PictureForm(resize="center_crop", image_size_px=64, max_aspect_ratio=3, encode_format="png")
    policy = FetchPolicy(concurrency=8, timeout_s=7.6, retries=1, user_agent='a "bot"', opt_out=False)
    told = command_line(form, policy)
    assert {name: json.loads(told[name]) for name in ("resize_mode", "encode_format", "user_agent_token")} == {
        "resize_mode": "center_crop",
        "encode_format": "png",
        "user_agent_token": 'a "bot"',
    }
    assert told["disallowed_header_directives"] == "[]"
    numbers = ("image_size", "encode_quality", "thread_count", "timeout", "retries", "max_aspect_ratio")
    assert [told[name] for name in numbers] == ["64", "6", "8", "8", "1", "3.0"]


def test_without_a_wish_it_resizes_nothing_and_heeds_its_own_list_of_opt_outs() -> None:
    told = command_line(PictureForm(), FetchPolicy())
    assert told["resize_mode"] == '"no"'
    assert not {"user_agent_token", "disallowed_header_directives", "max_image_area"} & set(told)


@pytest.mark.parametrize(
    ("status", "message", "ours", "http_status"),
    [
        ("failed_to_download", "HTTP Error 404: Not Found", "http_404", 404),
        ("failed_to_download", "HTTP Error 503: Service Unavailable", "http_5xx", 503),
        ("failed_to_download", "<urlopen error timed out>", "timeout", None),
        ("failed_to_download", "The read operation timed out", "timeout", None),
        ("failed_to_download", "<urlopen error [Errno -2] Name or service not known>", "no_such_host", None),
        ("failed_to_download", "<urlopen error [Errno -3] Temporary failure in name resolution>", "dns", None),
        ("failed_to_download", "<urlopen error [SSL: WRONG_VERSION_NUMBER] wrong version number>", "tls", None),
        ("failed_to_download", "<urlopen error [Errno 111] Connection refused>", "connect", None),
        ("failed_to_download", "Use of image disallowed by X-Robots-Tag directive", "opt_out_header", None),
        ("failed_to_resize", "image too small", "too_small", None),
        ("failed_to_resize", "aspect ratio too large", "bad_aspect_ratio", None),
        ("failed_to_resize", "Image decoding error", "not_an_image", None),
    ],
)
def test_its_messages_become_our_classes_of_failure(
    status: str, message: str, ours: str, http_status: int | None
) -> None:
    found = fetched(Outcome(3, status, message, None, None, None, None))
    assert (found.status, found.http_status, found.body) == (ours, http_status, None)
    assert message in found.error
    assert (ours in PASSING) == (ours in {"http_5xx", "timeout", "no_such_host", "dns", "tls", "connect"})


@pytest.mark.parametrize(
    "beyond", [{"longest_side_px": 256}, {"robots": True}, {"max_bytes": 10}, {"decode": "scaled"}, {"per_host": 2}]
)
def test_what_it_cannot_do_is_refused_by_name(beyond: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=rf"engine: img2dataset has no {next(iter(beyond))}"):
        Download(engine="img2dataset", **beyond)  # type: ignore[arg-type]
    Download(engine="img2dataset", robots=False, retries=1, resize="keep_ratio", image_size_px=64)


def test_the_real_one_fetches_in_an_environment_of_its_own(
    web: SmallWeb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pictures are what its algorithm makes; ours agree with them but for what two JPEG encoders differ in."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    try:
        img2dataset_python()
    except RunError as error:
        pytest.skip(str(error))  # no package index
    rows = [{"url": web.put(f"/{i}.jpg", textured_jpeg(i, 200, 150)), "caption": f"picture {i}"} for i in range(5)]
    rows.append({"url": rows[0]["url"], "caption": "the first once more"})
    rows += [{"url": f"{web.base_url}/dead.jpg", "caption": "dead"}, {"url": "http://169.254.169.254/", "caption": "x"}]
    web.put("/broken.jpg", b"no picture")
    rows.append({"url": f"{web.base_url}/broken.jpg", "caption": "broken"})
    wanted = {"resize": "keep_ratio", "image_size_px": 64, "allow_networks": ["127.0.0.0/8"], "retries": 0}
    source = {"table": write_table(tmp_path / "pairs.parquet", rows), "rows_per_part": 100}
    found = {}
    for engine in ("img2dataset", "pairmill"):
        step = {"download": {"engine": engine, **wanted}}
        spec = {"name": engine, "store": str(tmp_path / "store"), "source": source, "steps": [step, "inspect_image"]}
        found[engine] = samples(run_job(spec).manifest)
        assert web.asked["/0.jpg"] == (1 if engine == "img2dataset" else 2)
    names = ("status", "sha256", "original_width_px", "width_px", "height_px")
    theirs, ours = ([[row[name] for name in names] for row in rows] for rows in found.values())
    assert theirs == ours
    assert Counter(row[0] for row in ours) == {"ok": 6, "http_404": 1, "unsafe_address": 1, "not_an_image": 1}


def test_an_environment_that_cannot_be_made_is_a_sentence_and_nothing_is_fetched(
    web: SmallWeb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"{web.base_url}/no-index")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    table = write_table(tmp_path / "pairs.parquet", [{"url": web.put("/a.jpg", textured_jpeg(0)), "caption": "a"}])
    step = {"download": {"engine": "img2dataset", "allow_networks": ["127.0.0.0/8"]}}
    spec = {"name": "s", "store": str(tmp_path / "store"), "source": {"table": table}, "steps": [step]}
    with pytest.raises(RunError, match=r"an environment with img2dataset==1.47.0 could not be made .*UV_DEFAULT_INDEX"):
        run_job(spec)
    assert not web.asked["/a.jpg"]
