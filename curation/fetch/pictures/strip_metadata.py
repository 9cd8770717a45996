"""A picture without its metadata, by structure: no pixel is decoded and none is changed.

What is not needed for the pixels goes: EXIF (where and when a photograph was taken), XMP, comments, text, previews,
and whatever is appended after the end of the picture. Colour profiles go as well: our decoder ignores them, so
without them every reader, colour-managed or not, sees the pixels that Pairmill saw. What stays: for JPEG the JFIF and
Adobe segments (without them some files decode in wrong colours), for PNG `tRNS`, for WebP the alpha.
"""

import re
import struct
from dataclasses import dataclass

_JPEG, _PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # behind a scan: neither a stuffed byte, a restart, nor fill
_PNG_CHUNKS = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"}
_WEBP_CHUNKS = {b"VP8 ", b"VP8L", b"ALPH"}
_WEBP_ALPHA, _WEBP_ANIMATION = 0x10, 0x02


class BrokenStructure(ValueError):
    """The file does not keep to its format's structure; a lenient decoder may still read it."""


@dataclass(frozen=True)
class Bare:
    """A JPEG, PNG or WebP without metadata. `exif` is the TIFF block that was taken out, empty for none."""

    data: bytes
    format: str  # jpg, png or webp
    exif: bytes = b""
    animated: bool = False


def without_metadata(picture: bytes) -> Bare | None:
    """The picture without metadata; None where it is no JPEG, PNG or WebP. Raises BrokenStructure."""
    try:
        if picture.startswith(_JPEG):
            return _bare_jpeg(picture)
        if picture.startswith(_PNG):
            return _bare_png(picture)
        if picture[:4] == b"RIFF" and picture[8:12] == b"WEBP":
            return _bare_webp(picture)
    except (struct.error, IndexError) as error:
        raise BrokenStructure(f"cut short: {error}") from error
    return None


def jpeg_exif(picture: bytes) -> bytes:
    """The TIFF block of a JPEG that lies before its pixels, empty for none; nothing else is looked at."""
    at = 2
    while 0 < at + 4 < len(picture):
        marker, length = picture[at + 1], int.from_bytes(picture[at + 2 : at + 4], "big")
        if picture[at] != 0xFF or marker in (0x00, 0xFF):  # fill bytes, or rubbish that decoders step over
            at = picture.find(b"\xff", at + 1)
            continue
        if marker == 0xE1 and picture[at + 4 : at + 10] == b"Exif\0\0":
            return picture[at + 10 : at + 2 + length]
        if marker in (0xD9, 0xDA):
            break
        at += 2 + length
    return b""


def orientation(exif: bytes) -> int:
    """The orientation 1 to 8 that a TIFF block tells (tag 274 of its first directory); 1 where it tells none.

    Nothing else of the block is read, and nothing of it is passed on.
    """
    if not exif:
        return 1
    exif = exif.removeprefix(b"Exif\0\0")[:65_536]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4) if order else (len(exif),)
        (entries,) = struct.unpack_from(f"{order}H", exif, start) if order else (0,)
        for at in range(start + 2, start + 2 + 12 * entries, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, at)
            if tag == 274:
                return value if kind == 3 and 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def _bare_jpeg(picture: bytes) -> Bare:
    kept = [_JPEG]
    exif, at = b"", 2
    while True:
        if picture[at] != 0xFF:
            raise BrokenStructure(f"no JPEG marker at byte {at}")
        marker = picture[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == 0xD9:
            return Bare(b"".join([*kept, b"\xff\xd9"]), "jpg", exif)
        (length,) = struct.unpack_from(">H", picture, at + 2)
        if length < 2 or at + 2 + length > len(picture):
            raise BrokenStructure(f"a JPEG segment at byte {at} is longer than the file")
        segment = picture[at : at + 2 + length]
        if marker == 0xE1 and segment[4:10] == b"Exif\0\0" and not exif:
            exif = segment[10:]
        kept.append(_kept_segment(marker, segment))
        at += 2 + length
        if marker == 0xDA:
            found = _NEXT_MARKER.search(picture, at)
            end = found.start() if found else len(picture)
            kept.append(picture[at:end])
            if found is None:  # no end marker; the decoder decides whether the scan is complete
                return Bare(b"".join(kept), "jpg", exif)
            at = end


def _kept_segment(marker: int, segment: bytes) -> bytes:
    """The segment as it stays, empty if it goes."""
    if marker == 0xE0 and segment[4:9] == b"JFIF\0" and len(segment) >= 18:
        return b"\xff\xe0\x00\x10" + segment[4:16] + b"\0\0"  # without the thumbnail
    if marker == 0xEE and segment[4:9] == b"Adobe":
        return segment
    return b"" if marker == 0xFE or 0xE0 <= marker <= 0xEF else segment


def _bare_png(picture: bytes) -> Bare:
    kept = [_PNG]
    exif, at = b"", len(_PNG)
    while True:
        length, kind = struct.unpack_from(">I4s", picture, at)
        end = at + 12 + length
        if end > len(picture):
            raise BrokenStructure(f"a PNG chunk at byte {at} is longer than the file")
        if kind == b"eXIf" and not exif:
            exif = picture[at + 8 : end - 4]
        if kind in _PNG_CHUNKS:
            kept.append(picture[at:end])
        if kind == b"IEND":
            return Bare(b"".join(kept), "png", exif)
        at = end


def _bare_webp(picture: bytes) -> Bare:
    (size,) = struct.unpack_from("<I", picture, 4)
    stop = 8 + size
    if stop > len(picture):
        raise BrokenStructure("a WebP shorter than its header says")
    kept: list[bytes] = []
    exif, animated, at = b"", False, 12
    while at + 8 <= stop:
        kind, length = struct.unpack_from("<4sI", picture, at)
        end = at + 8 + length + length % 2
        if at + 8 + length > stop:
            raise BrokenStructure(f"a WebP chunk at byte {at} is longer than the file")
        chunk = picture[at:end]
        if kind == b"VP8X":
            animated = bool(chunk[8] & _WEBP_ANIMATION)
            kept.append(chunk[:8] + bytes([chunk[8] & _WEBP_ALPHA]) + chunk[9:])
        elif kind in _WEBP_CHUNKS:
            kept.append(chunk)
        elif kind == b"EXIF" and not exif:
            exif = chunk[8 : 8 + length]
        at = end
    body = b"WEBP" + b"".join(kept)
    return Bare(b"RIFF" + struct.pack("<I", len(body)) + body, "webp", exif, animated)
