"""The quick PNG decoder gives what Pillow gives, or leaves a file to it."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.fetch.pictures.plain_png import decode_plain_png
from schemas.pixels import DecodeError, decode

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def png(width_px: int, height_px: int, kind: int, lines: bytes, *more: tuple[bytes, bytes], layout=(8, 0)) -> bytes:
    """A PNG of filtered lines; `layout` is (bits, interlaced)."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width_px, height_px, layout[0], kind, 0, 0, layout[1])
    half = len(deflated := zlib.compress(lines)) // 2
    data = [(b"IDAT", deflated[:half]), (b"IDAT", deflated[half:])]
    chunks = [(b"IHDR", header), *more, *data, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, body) for name, body in chunks)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 40), st.integers(1, 20), st.sampled_from(sorted(CHANNELS)), st.integers(0, 2**32 - 1))
def test_any_filtered_lines_become_pillows_pixels(width_px: int, height_px: int, kind: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    lines_HN = generator.integers(0, 256, (height_px, 1 + width_px * CHANNELS[kind]), np.uint8)
    lines_HN[:, 0] %= 5
    palette = generator.bytes(3 * 256), generator.bytes(int(generator.integers(1, 257)))
    more = list(zip((b"PLTE", b"tRNS"), palette, strict=True)) if kind == 3 else []
    picture = png(width_px, height_px, kind, lines_HN.tobytes(), *more)
    ours_HWC = decode_plain_png(picture)
    assert ours_HWC is not None
    assert ours_HWC.shape == (height_px, width_px, 1 if kind in (0, 4) else 3)
    assert np.abs(ours_HWC[:, :, ::-1].astype(int) - decode(picture)).max() <= 1


def test_what_is_unusual_or_damaged_is_left_to_pillow() -> None:
    lines = bytes(3 * 10)
    assert decode_plain_png(png(3, 3, 2, lines)) is not None
    assert decode_plain_png(png(3, 3, 2, lines[:-1])) is None
    assert decode_plain_png(png(3, 3, 2, lines + b"more")) is None
    assert decode_plain_png(png(3, 3, 2, b"\5" + lines[1:])) is None
    assert decode_plain_png(png(3, 3, 2, lines, (b"tRNS", bytes(6)))) is None
    assert decode_plain_png(png(3, 3, 2, lines, layout=(16, 0))) is None
    assert decode_plain_png(png(3, 3, 2, lines, layout=(8, 1))) is None
    whole = png(3, 3, 2, bytes(range(30)).replace(b"\n", b"\0").replace(b"\x14", b"\0"))
    at = whole.rindex(b"IDAT") + 4
    damaged = whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :]
    assert decode_plain_png(damaged) is None


def test_a_short_palette_ends_in_black() -> None:
    picture = png(2, 1, 3, b"\0\0\5", (b"PLTE", bytes([9, 8, 7])))
    assert decode_plain_png(picture).tolist() == [[[7, 8, 9], [0, 0, 0]]]


def test_a_bomb_is_not_inflated_further_than_its_header_says() -> None:
    bomb = png(3, 3, 2, bytes(200_000_000))
    assert decode_plain_png(bomb) is None
    with pytest.raises(DecodeError):
        decode(bomb[:-30])
