"""CPU time per picture: decode, resize, encode and all of `to_stored`, beside OpenCV's in img2dataset's recipe.

    python benchmarks/pixels.py FOLDER [--count 300] [--side 256 512] [--decode full scaled planes]

FOLDER holds pictures as the web has them, in any depth. Goal: at 256 px and equal pixels (within one grey level before
encoding), an area average in less than half of OpenCV's time. One thread; the best of several rounds for each picture,
OpenCV's and ours in turn, so that other load on the machine meets both.
"""

import argparse
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from curation.fetch.pictures.opened_picture import open_fetched
from curation.fetch.pictures.picture_form import PictureForm
from curation.fetch.pictures.pixel_changes import encoded, scaled
from curation.fetch.pictures.to_stored import to_stored
from schemas.pixels import DecodeError

ROUNDS = 3
QUALITY = 95


def main() -> None:
    """Print a table for every side and way of decoding."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--side", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--decode", nargs="+", default=["full", "scaled", "planes"])
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    paths = [path for path in sorted(arguments.folder.rglob("*")) if path.suffix in (".jpg", ".png", ".webp")]
    pictures = [path.read_bytes() for path in paths[:: max(1, len(paths) // arguments.count)][: arguments.count]]
    for side_px in arguments.side:
        for decode in arguments.decode:
            _compare(pictures, side_px, decode)


def _compare(pictures: list[bytes], side_px: int, decode: str) -> None:
    form = PictureForm.model_validate(
        {"resize": "keep_ratio", "image_size_px": side_px, "skip_reencode": False, "decode": decode}
    )
    us: dict[tuple[str, str], list[float]] = defaultdict(list)
    psnr_db: list[float] = []
    counts: Counter[str] = Counter()
    for fetched in [pictures[0], *pictures]:  # the first one twice: it pays for what is compiled or loaded
        for name, times in _stages(fetched, form, psnr_db, counts):
            us[name].append(times)
    print(f"\n{side_px} px, decode: {decode}; {len(pictures)} pictures, µs of CPU each (mean)")
    for stage in ("decode", "resize", "encode", "all"):
        ours, theirs = (float(np.mean(us[who, stage][1:])) for who in ("ours", "cv2"))
        print(f"  {stage:7} ours {ours:7.0f}   OpenCV {theirs:7.0f}   {theirs / ours:5.2f} times")
    low, median = np.percentile(psnr_db, [5, 50])
    print(f"  PSNR to OpenCV's result: median {median:.1f} dB, 5 % below {low:.1f} dB; {dict(counts)}")


def _stages(
    fetched: bytes, form: PictureForm, psnr_db: list[float], counts: Counter[str]
) -> Iterator[tuple[tuple[str, str], float]]:
    """((who, stage), µs) of one picture; nothing for what is no picture or is turned by its EXIF."""
    try:
        with open_fetched(fetched) as picture:
            turned = picture.turn != 1
            full_HWC = picture.pixels()
    except DecodeError:
        counts["no picture"] += 1
        return
    if turned:
        counts["turned, left out"] += 1  # img2dataset leaves them as they lie
        return
    wanted, shrinks = _wanted(full_HWC, form.image_size_px or 0)
    small_HWC = scaled(full_HWC, wanted)
    kind = cv2.INTER_AREA if shrinks else cv2.INTER_LANCZOS4
    stages: dict[tuple[str, str], Callable[[], Any]] = {
        ("ours", "decode"): lambda: _decoded(fetched),
        ("cv2", "decode"): lambda: _on_white(fetched),
        ("ours", "resize"): lambda: scaled(full_HWC, wanted),
        ("cv2", "resize"): lambda: cv2.resize(full_HWC, wanted, interpolation=kind),
        ("ours", "encode"): lambda: encoded(small_HWC, "jpg", QUALITY),
        ("cv2", "encode"): lambda: cv2.imencode(".jpg", small_HWC, [cv2.IMWRITE_JPEG_QUALITY, QUALITY]),
        ("ours", "all"): lambda: to_stored(fetched, form),
        ("cv2", "all"): lambda: _recipe(fetched, form.image_size_px or 0),
    }
    for name, run in stages.items():
        yield name, min(_us(run) for _ in range(ROUNDS))
    ours, theirs = to_stored(fetched, form).bytes, _recipe(fetched, form.image_size_px or 0)
    counts["identical files" if ours == theirs else "files that differ"] += 1
    psnr_db.append(_psnr_db(ours, theirs))


def _us(run: Callable[[], Any]) -> float:
    start = time.thread_time_ns()
    run()
    return (time.thread_time_ns() - start) / 1000


def _decoded(fetched: bytes) -> np.ndarray:
    with open_fetched(fetched) as picture:
        return picture.pixels()


def _recipe(fetched: bytes, side_px: int) -> bytes:
    """What img2dataset does to a picture, without what it wraps around it."""
    pixels_HWC = _on_white(fetched)
    wanted, shrinks = _wanted(pixels_HWC, side_px)
    kind = cv2.INTER_AREA if shrinks else cv2.INTER_LANCZOS4
    small_HWC = cv2.resize(pixels_HWC, wanted, interpolation=kind)
    return cv2.imencode(".jpg", small_HWC, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


def _on_white(fetched: bytes) -> np.ndarray:
    pixels_HWC = cv2.imdecode(np.frombuffer(fetched, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels_HWC is not None and pixels_HWC.ndim == 3 and pixels_HWC.shape[2] == 4:
        alpha_HW1 = pixels_HWC[:, :, 3:]
        white = alpha_HW1 / 255 * pixels_HWC[:, :, :3] + 255 - alpha_HW1
        return np.rint(white.clip(0, 255)).astype(np.uint8)
    return pixels_HWC


def _wanted(pixels_HWC: np.ndarray, side_px: int) -> tuple[tuple[int, int], bool]:
    height_px, width_px = pixels_HWC.shape[:2]
    scale = side_px / min(height_px, width_px)
    return (max(1, round(width_px * scale)), max(1, round(height_px * scale))), scale < 1


def _psnr_db(one: bytes, other: bytes) -> float:
    a, b = (cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).astype(np.int32) for data in (one, other))
    error = float(((a - b) ** 2).mean())
    return 99.0 if error == 0 else float(10 * np.log10(255**2 / error))


if __name__ == "__main__":
    main()
