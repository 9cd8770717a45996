"""What the user's own lists name is not asked for, and never stored."""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from misbehaving_web import Web, answer, redirect
from PIL import Image

from curation.fetch.block_lists import BlockLists, load_block_lists
from curation.operator import Batch, Output
from curation.operators.download import Download
from schemas.errors import InputError
from schemas.pixels import decode

HERE = {"allow_networks": ("127.0.0.0/8",), "timeout_s": 5}


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web()
    yield server
    server.close()


def picture(seed: int, kind: str = "PNG", side_px: int = 512, **options: object) -> bytes:
    spots = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), np.uint8)
    target = io.BytesIO()
    Image.fromarray(spots).resize((side_px, side_px), Image.Resampling.BICUBIC).save(target, kind, **options)
    return target.getvalue()


def statuses(operator: Download, *urls: str) -> list[str]:
    batch = Batch(pa.table({"key": [f"{i:032x}" for i in range(len(urls))], "url": list(urls)}), [None] * len(urls))
    output: Output = operator.run(batch, operator.open())
    found = [output.failures[i].status if i in output.failures else "ok" for i in range(len(urls))]
    assert [stored is not None for stored in output.stored or ()] == [status == "ok" for status in found]
    return found


def test_a_blocked_domain_is_not_asked_for_anything(web: Web, tmp_path: Path) -> None:
    (tmp_path / "domains.txt").write_text("# not these\n*.Example.com\n127.0.0.2  # this machine\n\n")
    other = Web("127.0.0.2", web.port)
    there = other.serve("/b", answer(picture(1)))
    urls = [web.serve("/a", answer(picture(1))), there, web.serve("/c", redirect(there)), "http://img.example.com/"]
    operator = Download(**HERE, block_domains=str(tmp_path / "domains.txt"))
    assert statuses(operator, *urls) == ["ok", "blocked_domain", "blocked_domain", "blocked_domain"]
    assert not other.asked
    assert not other.asked_first
    other.close()


def test_a_blocked_picture_is_not_stored(web: Web, tmp_path: Path) -> None:
    import pdqhash

    bad, worse, good = picture(1), picture(2), picture(3)
    bits, _ = pdqhash.compute(decode(worse))
    pdq = np.packbits(bits).tobytes().hex()
    listed = f"{hashlib.sha256(bad).hexdigest().upper()}\npdq:{pdq}\nsha256:{'0' * 64}\n"
    (tmp_path / "hashes.txt").write_text(listed)
    alike = picture(2, "JPEG", quality=60)  # 20 bits of 256 differ; of other pictures, half of them
    urls = [web.serve(f"/{i}", answer(body)) for i, body in enumerate([bad, worse, alike, good, picture(4)])]
    operator = Download(**HERE, block_hashes=str(tmp_path / "hashes.txt"))
    assert statuses(operator, *urls) == ["blocked_hash", "blocked_hash", "blocked_hash", "ok", "ok"]


@pytest.mark.parametrize(
    ("host", "entry"),
    [
        ("example.com", "example.com"),
        ("a.b.example.com.", "example.com"),
        ("badexample.com", ""),
        ("com", ""),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("127.0.0.1", ""),
    ],
)
def test_a_domain_blocks_what_is_under_it(host: str, entry: str, tmp_path: Path) -> None:
    (tmp_path / "domains.txt").write_text("example.com\nbücher.example\n")
    assert load_block_lists(str(tmp_path / "domains.txt"), None).host(host) == entry


@given(st.text())
def test_any_host_can_be_judged(host: str) -> None:
    assert BlockLists(frozenset({"example.com"})).host(host) in ("", "example.com")


@pytest.mark.parametrize(
    ("domains", "hashes", "expected"),
    [
        ("http://example.com/", None, r"domains.txt, line 1: .* is no domain"),
        (None, "abc", r"hashes.txt, line 1: 'abc' is no hash"),
        (None, "\nmd5:" + "0" * 64, r"hashes.txt, line 2"),
    ],
)
def test_a_list_that_cannot_be_read_is_refused_before_anything_runs(
    tmp_path: Path, domains: str | None, hashes: str | None, expected: str
) -> None:
    for name, text in (("domains", domains), ("hashes", hashes)):
        (tmp_path / f"{name}.txt").write_text(text or "")
    named = {"block_domains": str(tmp_path / "domains.txt"), "block_hashes": str(tmp_path / "hashes.txt")}
    with pytest.raises(InputError, match=expected):
        Download(**named).check()
    with pytest.raises(InputError, match="cannot be read"):
        Download(block_domains=str(tmp_path / "no such file")).check()
