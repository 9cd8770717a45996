"""`engine: img2dataset`: what it is told, what its words mean, what it refuses. The real one runs in test_on_ray."""

import json
from pathlib import Path

import pytest
from conftest import SmallWeb, run_job, textured_jpeg, write_table
from pydantic import ValidationError

from curation.fetch.img2dataset_engine import command_line, fetched
from curation.fetch.img2dataset_run import Outcome
from curation.fetch.outcomes import PASSING
from curation.fetch.pictures.picture_form import PictureForm
from curation.fetch.policy import FetchPolicy
from curation.operators.download import Download
from schemas.errors import RunError


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


def test_without_ray_it_is_refused_with_the_way_out(web: SmallWeb, tmp_path: Path) -> None:
    table = write_table(tmp_path / "pairs.parquet", [{"url": web.put("/a.jpg", textured_jpeg(0)), "caption": "a"}])
    spec = {
        "name": "s",
        "store": str(tmp_path / "store"),
        "source": {"table": table},
        "steps": [{"download": {"engine": "img2dataset"}}],
    }
    with pytest.raises(RunError, match="--executor ray"):
        run_job(spec)
    assert not web.asked
