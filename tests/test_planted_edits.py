"""Edits that pHash and PDQ are to find, at the rates that they do, and edits that they are known not to find."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_image_hash import batch, bits_apart, natural

from curation.operators.image_hash import ImageHash
from schemas.pixels import decode

RADIUS = {"phash": 4, "pdq": 30}
STAMPS = Path("/usr/share/tuxpaint/stamps")  # of Debian's tuxpaint-stamps-default
PICTURES = 16
Edit = Callable[[np.ndarray], np.ndarray]


def jpeg(quality: int) -> Edit:
    def edited(pixels_HWC: np.ndarray) -> np.ndarray:
        stored = io.BytesIO()
        Image.fromarray(pixels_HWC).save(stored, "JPEG", quality=quality)
        return decode(stored.getvalue())

    return edited


def resized(factor: float) -> Edit:
    def edited(pixels_HWC: np.ndarray) -> np.ndarray:
        height_px, width_px = pixels_HWC.shape[:2]
        size = (round(width_px * factor), round(height_px * factor))
        return np.asarray(Image.fromarray(pixels_HWC).resize(size, Image.Resampling.BICUBIC))

    return edited


def grey(pixels_HWC: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels_HWC).convert("L").convert("RGB"))


def watermarked(pixels_HWC: np.ndarray) -> np.ndarray:
    """A half-transparent white box on 5 % of the picture, in a corner."""
    height_px, width_px = pixels_HWC.shape[:2]
    changed = pixels_HWC.copy()
    box = changed[-round(height_px * 0.1) - 8 : -8, -round(width_px * 0.5) - 8 : -8]
    box[:] = (box.astype(np.uint16) + 255) // 2
    return changed


def cropped(share: float) -> Edit:
    """A picture without so much of its area, cut off evenly at all sides."""

    def edited(pixels_HWC: np.ndarray) -> np.ndarray:
        rest = (1 - (1 - share) ** 0.5) / 2
        top, left = (round(side_px * rest) for side_px in pixels_HWC.shape[:2])
        return pixels_HWC[top:-top, left:-left]

    return edited


def flipped(pixels_HWC: np.ndarray) -> np.ndarray:
    return pixels_HWC[:, ::-1]


def turned(pixels_HWC: np.ndarray) -> np.ndarray:
    return np.rot90(pixels_HWC)


EDITS: dict[str, Edit] = {
    "jpeg 95": jpeg(95), "jpeg 75": jpeg(75), "jpeg 50": jpeg(50), "jpeg 30": jpeg(30),
    "resize 0.25": resized(0.25), "resize 0.5": resized(0.5), "resize 0.75": resized(0.75), "resize 2": resized(2),
    "grey": grey, "watermark": watermarked,
    "crop 5 %": cropped(0.05), "crop 20 %": cropped(0.2), "flip": flipped, "turn": turned,
}  # fmt: skip


def stored(pixels_HWC: np.ndarray) -> bytes:
    written = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels_HWC)).save(written, "PNG", compress_level=0)
    return written.getvalue()


def hashes(kind: str, pictures: list[np.ndarray]) -> list[bytes]:
    operator = ImageHash.model_validate({"kind": kind})
    values = operator.run(batch([stored(pixels) for pixels in pictures]), None).values[kind]
    return [value if isinstance(value, bytes) else int(value).to_bytes(8, "big") for value in values]


def share_found(kind: str, edit: str, pictures: list[np.ndarray]) -> float:
    """How many of the edited pictures lie within the radius of what they were made of."""
    originals, changed = hashes(kind, pictures), hashes(kind, [EDITS[edit](pixels) for pixels in pictures])
    near = [bits_apart(one, other) <= RADIUS[kind] for one, other in zip(originals, changed, strict=True)]
    return sum(near) / len(near)


def generated() -> list[np.ndarray]:
    return [natural(seed, 200 + 16 * (seed % 3), 216 + 24 * (seed % 4)) for seed in range(PICTURES)]


def stamps() -> list[np.ndarray]:
    """Photographs and drawings on white."""
    found = (decode(path.read_bytes()) for path in sorted(STAMPS.rglob("*.png"))[::5])  # fewer tell too little
    return [pixels_HWC for pixels_HWC in found if min(pixels_HWC.shape[:2]) >= 64]


@pytest.fixture(scope="module", params=[generated, stamps])
def pictures(request: pytest.FixtureRequest) -> list[np.ndarray]:
    found: list[np.ndarray] = request.param()
    if not found:
        pytest.skip(f"there are no pictures in {STAMPS}")
    return found


@pytest.mark.parametrize("edit", [edit for edit in EDITS if edit.startswith(("jpeg", "grey"))])
@pytest.mark.parametrize("kind", RADIUS)
def test_of_pictures_encoded_anew_or_made_grey_nine_in_ten_are_found(
    kind: str, edit: str, pictures: list[np.ndarray]
) -> None:
    assert share_found(kind, edit, pictures) >= 0.9


@pytest.mark.parametrize("edit", [edit for edit in EDITS if edit.startswith("resize")])
@pytest.mark.parametrize(("kind", "at_least"), [("phash", 0.9), ("pdq", 0.75)])
def test_of_resized_pictures_phash_finds_nine_in_ten_and_pdq_three_in_four(
    kind: str, at_least: float, edit: str, pictures: list[np.ndarray]
) -> None:
    """PDQ blurs with a window of whole pixels, which below 256 pixels is another share of a smaller picture."""
    assert share_found(kind, edit, pictures) >= at_least


@pytest.mark.parametrize(
    ("kind", "edit", "at_least"),
    [("phash", "watermark", 0.1), ("pdq", "watermark", 0.8), ("phash", "crop 5 %", 0.6), ("pdq", "crop 5 %", 0.4)],
)
def test_a_watermark_or_a_small_crop_is_found_in_part(
    kind: str, edit: str, at_least: float, pictures: list[np.ndarray]
) -> None:
    assert at_least <= share_found(kind, edit, pictures)


@pytest.mark.parametrize("edit", ["crop 20 %", "flip", "turn"])
@pytest.mark.parametrize("kind", RADIUS)
def test_a_large_crop_a_flip_and_a_turn_are_not_found(kind: str, edit: str, pictures: list[np.ndarray]) -> None:
    assert share_found(kind, edit, pictures) <= 0.1  # a drawing may be its own mirror image


@pytest.mark.parametrize("kind", RADIUS)
def test_different_pictures_are_not_taken_for_each_other(kind: str) -> None:
    codes = hashes(kind, generated())
    assert min(bits_apart(one, other) for n, one in enumerate(codes) for other in codes[:n]) > RADIUS[kind]
