"""The operator `download`: rows in, stored pictures and outcomes out."""

import hashlib
import io
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from misbehaving_web import Web, answer, redirect
from PIL import Image
from pydantic import ValidationError

from curation.fetch.ledger import LEDGER
from curation.fetch.outcomes import PASSING
from curation.fetch.pictures.picture_form import PictureForm
from curation.operator import Batch, Failure, Output
from curation.operators.download import Download
from schemas.columns import IMAGE
from schemas.pixels import decode, picture_size

HERE = {"allow_networks": ("127.0.0.0/8",), "timeout_s": 5}


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web()
    yield server
    server.close()


def picture(kind: str = "PNG", side_px: tuple[int, int] = (40, 30), **options: object) -> bytes:
    target = io.BytesIO()
    spots = np.random.default_rng(0).integers(0, 255, (4, 5, 3), np.uint8)
    Image.fromarray(spots).resize(side_px, Image.Resampling.BICUBIC).save(target, kind, **options)
    return target.getvalue()


def batch(urls: Sequence[str | None], first: int = 0, **columns: Sequence[str | None]) -> tuple[np.ndarray, Batch]:
    keys = [f"{first + i:032x}" for i in range(len(urls))]
    more = {name: pa.array(values, pa.string()) for name, values in columns.items()}
    table = pa.table({"key": keys, "url": pa.array(urls, pa.string()), **more})
    return np.arange(first, first + len(urls)), Batch(table, [None] * len(urls))


def run(operator: Download, urls: Sequence[str | None], **columns: Sequence[str | None]) -> Output:
    return operator.run(batch(urls, **columns)[1], operator.open())


def statuses(output: Output, rows: int) -> list[str]:
    return [output.failures[i].status if i in output.failures else "ok" for i in range(rows)]


def test_a_picture_is_stored_with_its_digests_and_its_original_size(web: Web) -> None:
    fetched = picture("JPEG", comment=b"Secret")
    output = run(Download(**HERE), [web.serve("/a.jpg", answer(fetched))])
    assert output.stored is not None
    stored = output.stored[0]
    assert stored is not None
    assert b"Secret" not in stored
    assert np.array_equal(decode(stored), decode(fetched))
    assert {name: values[0] for name, values in output.values.items()} == {
        "http_status": 200,
        "sha256": hashlib.sha256(fetched).hexdigest(),
        "stored_sha256": hashlib.sha256(stored).hexdigest(),
        "original_width_px": 40,
        "original_height_px": 30,
    }
    assert not output.failures


def test_what_it_adds_is_what_it_declares(web: Web) -> None:
    operator = Download(**HERE)
    output = run(operator, [web.serve("/", answer(picture())), None])
    assert [*output.values, IMAGE.name] == [column.name for column in operator.adds]
    for column in operator.adds:
        if column is not IMAGE:
            pa.array(output.values[column.name], column.type)


def test_a_picture_is_shrunk_as_asked(web: Web) -> None:
    url = web.serve("/", answer(picture(side_px=(400, 300))))
    for asked, size in (({"longest_side_px": 100}, (100, 75)), ({"shortest_side_px": 100}, (133, 100))):
        output = run(Download(**HERE, **asked), [url])
        assert picture_size(output.stored[0]) == size  # type: ignore[index]
        assert output.values["original_width_px"][0] == 400


def test_each_row_has_its_own_outcome(web: Web) -> None:
    urls = {
        web.serve("/ok", answer(picture())): "ok",
        web.serve("/moved", redirect("/ok")): "ok",
        web.url("/gone"): "http_404",
        web.serve("/page", answer(b"<html>not here any more</html>")): "not_an_image",
        web.serve("/broken", answer(picture()[:300])): "decode_error",
        web.serve("/half", answer(picture()[:300], length=1000)): "broken_answer",
        web.serve("/big", answer(bytes(50_000))): "too_large",
        "http://10.0.0.1/": "unsafe_address",
        "file:///etc/passwd": "unsafe_url",
        "no url": "bad_url",
        "": "bad_url",
        " ": "bad_url",
        None: "bad_url",
    }
    output = run(Download(**HERE, retries=0, max_bytes=40_000), list(urls))
    assert statuses(output, len(urls)) == list(urls.values())
    assert [stored is not None for stored in output.stored or ()] == [status == "ok" for status in urls.values()]
    assert all(isinstance(failure, Failure) and " " in failure.error for failure in output.failures.values())


def test_rows_with_one_url_cost_one_fetch_even_across_batches(web: Web) -> None:
    a, b = (web.serve(path, answer(picture())) for path in ("/a", "/b"))
    operator = Download(**HERE)
    batches = [batch([a, a]), batch([a, b, b], 2), batch([None, b], 5)]
    outputs = list(operator.stream(iter(batches), operator.open()))
    assert web.asked == {"/a": 1, "/b": 2}  # rows of one URL stand together in a part; the last one here does not
    rows = np.concatenate([rows for rows, _ in outputs])
    assert sorted(rows.tolist()) == list(range(7))
    stored = {int(row): s for rows, output in outputs for row, s in zip(rows, output.stored or (), strict=True)}
    assert stored[0] == stored[2] is not None
    assert stored[5] is None


def test_expected_digests_are_checked_row_by_row(web: Web) -> None:
    fetched = picture()
    url, digest = web.serve("/", answer(fetched)), hashlib.sha256(fetched).hexdigest()
    operator = Download(**HERE, expect_sha256="digest")
    assert [column.name for column in operator.reads] == ["url", "digest"]
    expected = [digest, f" {digest.upper()}", "0" * 64, None, ""]
    output = run(operator, [url] * 5, digest=expected)
    assert statuses(output, 5) == ["ok"] * 5  # what is recorded; the policy of a plan is applied to it
    refused = operator.refusals(pa.table(dict(output.values)), pa.table({"digest": expected}))
    assert {row: failure.status for row, failure in refused.items()} == {2: "sha256_mismatch"}
    assert web.asked["/"] == 1
    broken = run(operator, [web.serve("/b", answer(b"other bytes"))], digest=[digest])
    refused = operator.refusals(pa.table(dict(broken.values)), pa.table({"digest": [digest]}))
    assert {row: failure.status for row, failure in refused.items()} == {0: "sha256_mismatch"}


def test_completed_rows_go_on_before_all_are_there(web: Web) -> None:
    release = threading.Event()

    def held(connection: object, _web: Web) -> None:
        release.wait(10)
        connection.sendall(answer(picture()))  # type: ignore[attr-defined]

    urls = [web.serve(f"/{i}", held if i == 0 else answer(picture())) for i in range(66)]
    operator = Download(**HERE)
    stream = operator.stream(iter([batch(urls)]), operator.open())
    rows, output = next(stream)
    assert len(rows) == 64
    assert 0 not in rows
    assert len(output.stored or ()) == 64
    release.set()
    assert sorted(row for rows, _ in stream for row in rows.tolist()) == sorted({*range(66)} - set(rows.tolist()))


def test_the_ledger_has_one_line_per_fetch(web: Web) -> None:
    a = web.serve("/a", answer(b"busy", "503 Busy"), answer(picture(), "200 OK", "Content-Type: image/png"))
    b = web.serve("/b", answer(b"<html>"))
    output = run(Download(**HERE), [a, a, b, None])
    lines = {line["url"]: line for line in output.ledger}
    assert len(output.ledger) == 2  # rows of one URL share a line; no URL has none
    assert set(lines[a]) == set(LEDGER.names)
    assert (lines[a]["status"], lines[a]["attempts"], lines[a]["fetched_bytes"]) == ("ok", 2, len(picture()))
    assert (lines[a]["key"], lines[a]["content_type"], lines[a]["host"]) == ("0" * 32, "image/png", "127.0.0.1")
    assert lines[b]["status"] == "not_an_image"
    assert lines[a]["fetched_at"] <= datetime.now(UTC).replace(tzinfo=None)
    pa.Table.from_pylist(list(output.ledger), schema=LEDGER)


def test_the_ledger_says_of_every_url_what_became_of_it(web: Web) -> None:
    web.serve("/robots.txt", answer(b"User-agent: *\nDisallow: /private"))
    urls = [web.url("/private"), web.serve("/moved", redirect("/gone")), "http://10.0.0.1/", "nonsense"]
    lines = {line["url"]: line for line in run(Download(**HERE), urls).ledger}
    told = {
        url: (line["status"], line["http_status"], line["attempts"], line["redirects"]) for url, line in lines.items()
    }
    assert [told[url] for url in urls] == [
        ("robots_disallowed", None, 0, 0),
        ("http_404", 404, 1, 1),
        ("unsafe_address", None, 0, 0),
        ("bad_url", None, 0, 0),
    ]
    assert all(line["fetched_at"] for line in lines.values())


def test_an_abandoned_stream_ends_its_thread(web: Web) -> None:
    urls = [web.serve(f"/{i}", answer(picture())) for i in range(200)]
    operator = Download(**HERE)
    stream = operator.stream(iter([batch(urls)]), operator.open())
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name == "fetch"]


def test_many_rows_are_in_flight_at_once(web: Web) -> None:
    everybody = threading.Barrier(20)

    def together(connection: object, _web: Web) -> None:
        everybody.wait(10)  # fails unless 20 requests are there at once
        connection.sendall(answer(picture()))  # type: ignore[attr-defined]

    urls = [web.serve(f"/{i}", together) for i in range(20)]
    assert not run(Download(**HERE, concurrency=20), urls).failures


def test_only_what_changes_a_result_is_part_of_the_fingerprint() -> None:
    assert set(Download.result_parameters()) == {"engine", "max_bytes", "store_original", *PictureForm.model_fields}
    assert Download.captured
    assert Download.passing == PASSING


@pytest.mark.parametrize(
    "wrong",
    [
        {"longest_side_px": 0},
        {"shortest_side": 5},
        {"allow_networks": ["127.0.0.1/8"]},
        {"user_agent": "a\r\nCookie: b"},
        {"timeout_s": 0},
        {"store_originals": True},
    ],
)
def test_a_wrong_parameter_is_refused_before_anything_runs(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Download(**wrong)
