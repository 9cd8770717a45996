"""`image_hash` against the library that defines the hashes."""

import io

import imagehash
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curation.operator import Batch
from curation.operators.image_hash import ImageHash
from curation.pdq import pdq_and_quality
from schemas.columns import DHASH, PDQ, PDQ_QUALITY, PHASH

X = np.arange(256, dtype=np.uint8)


def textured(seed: int, height_px: int, width_px: int) -> np.ndarray:
    """Waves of a few frequencies under noise, in colour."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height_px, :width_px]
    waves = sum(
        random.uniform(10, 60) * np.sin(random.uniform(0, 0.3) * x + random.uniform(0, 0.3) * y + n) for n in range(5)
    )
    pixels = (
        128 + np.asarray(waves)[..., None] * random.uniform(0.3, 1, 3) + random.normal(0, 8, (height_px, width_px, 3))
    )
    return pixels.clip(0, 255).astype(np.uint8)


def grey(luma_HW: np.ndarray) -> np.ndarray:
    return np.repeat(luma_HW[..., None], 3, axis=2)


def pictures() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    made = {f"noise {n}": random.integers(0, 256, (64 + 9 * n, 200 - 7 * n, 3), dtype=np.uint8) for n in range(10)}
    made |= {f"texture {n}": textured(n, 50 + 13 * n, 230 - 5 * n) for n in range(30)}
    made |= {f"flat {level}": np.full((60, 80, 3), level, np.uint8) for level in (0, 1, 7, 100, 128, 200, 254, 255)}
    made |= {f"flat colour {n}": np.full((33, 47, 3), random.integers(0, 256, 3), np.uint8) for n in range(10)}
    made |= {"ramp": grey(np.tile(X, (256, 1))), "reversed ramp": grey(np.tile(X[::-1], (256, 1)))}
    made |= {"vertical ramp": grey(np.tile(X[:, None], (1, 100))), "diagonal": grey(np.add.outer(X // 2, X // 2))}
    made |= {"one pixel": np.full((1, 1, 3), 90, np.uint8), "one row": random.integers(0, 256, (1, 300, 3), np.uint8)}
    shape = np.full((96, 96, 3), 240, np.uint8)
    shape[30:60, 20:50] = (200, 30, 30)
    return made | {"shape on flat ground": shape}


def png(pixels_HWC: np.ndarray) -> bytes:
    stored = io.BytesIO()
    Image.fromarray(pixels_HWC).save(stored, "PNG")
    return stored.getvalue()


def batch(stored: list[bytes]) -> Batch:
    return Batch(pa.table({"key": [f"{n:032x}" for n in range(len(stored))]}), stored)


def hashes(pixels: list[np.ndarray], kind: str) -> list[int]:
    output = ImageHash.model_validate({"kind": kind}).run(batch([png(picture) for picture in pixels]), None)
    assert not output.failures
    return list(output.values[kind])


@pytest.mark.parametrize("kind", ["phash", "dhash"])
def test_every_bit_is_the_one_that_imagehash_computes(kind: str) -> None:
    made = pictures()
    expected = {name: int(str(getattr(imagehash, kind)(Image.fromarray(pixels))), 16) for name, pixels in made.items()}
    assert dict(zip(made, hashes(list(made.values()), kind), strict=True)) == expected


def test_golden_hashes_of_version_1() -> None:
    made = pictures()
    names = ["flat 128", "flat 0", "ramp", "reversed ramp", "noise 3"]
    found = [f"{code:016x}" for code in hashes([made[name] for name in names], "phash")]
    assert ImageHash.version == 1
    assert found == ["8000000000000000", "0000000000000000", "aa00000000000000", "ff00000000000000", "8696b443bc7dd2a8"]
    assert [f"{code:016x}" for code in hashes([made["ramp"], made["reversed ramp"]], "dhash")] == ["f" * 16, "0" * 16]


def test_a_resized_picture_keeps_nearly_all_bits_and_another_picture_does_not() -> None:
    original, other = textured(1, 200, 300), textured(2, 200, 300)
    smaller = np.asarray(Image.fromarray(original).resize((150, 100), Image.Resampling.LANCZOS))
    a, b, c = hashes([original, smaller, other], "phash")
    assert (a ^ b).bit_count() <= 4
    assert (a ^ c).bit_count() > 12


def test_a_picture_that_cannot_be_decoded_fails_alone() -> None:
    made = pictures()
    output = ImageHash().run(batch([png(made["ramp"]), b"no picture", png(made["flat 0"])]), None)
    assert list(output.values["phash"]) == [0xAA00000000000000, None, 0]
    assert set(output.failures) == {1}
    assert output.failures[1].error


def test_the_column_is_an_unsigned_64_bit_number_that_arrow_takes_as_it_is() -> None:
    assert ImageHash().adds == (PHASH,)
    assert ImageHash(kind="dhash").adds == (DHASH,)
    assert pa.array(hashes([np.full((9, 9, 3), 128, np.uint8)], "phash"), PHASH.type).to_pylist() == [2**63]


def natural(seed: int, height_px: int, width_px: int) -> np.ndarray:
    """A picture whose frequencies fall off as in photographs (amplitude 1 / frequency), in muted colours."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height_px)[:, None] * height_px, np.fft.rfftfreq(width_px) * width_px)
    frequency[0, 0] = 1

    def layer() -> np.ndarray:
        waves = np.fft.rfft2(random.normal(size=(height_px, width_px))) / frequency
        values = np.fft.irfft2(waves, (height_px, width_px))
        return np.asarray(values / values.std())

    luma = layer()
    colours = [128 + 45 * luma + 15 * layer() for _ in range(3)]
    return np.stack(colours, axis=2).clip(0, 255).astype(np.uint8)


def bits_apart(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).bit_count()


def pdq(pixels_HWC: np.ndarray) -> bytes:
    return pdq_and_quality(pixels_HWC)[0]


def pdq_by_definition(pixels_64x64x3: np.ndarray) -> bytes:
    """PDQ of a picture of 64 × 64, which it neither blurs nor reduces: frequencies 1 to 16 against their lower median.

    Bit 16 · i + j stands for frequency (i, j); ThreatExchange prints bit 255 first.
    """
    luma = pixels_64x64x3.astype(np.float64) @ [0.299, 0.587, 0.114]
    frequency, place = np.arange(1, 17)[:, None], np.arange(64)
    dct = np.sqrt(2 / 64) * np.cos(np.pi / 2 / 64 * frequency * (2 * place + 1))
    wave = (dct @ luma @ dct.T).ravel()
    return np.packbits((wave > np.sort(wave)[127])[::-1]).tobytes()


@pytest.mark.parametrize("seed", range(8))
def test_pdq_is_the_bits_that_its_definition_gives_in_the_order_that_threatexchange_prints(seed: int) -> None:
    pixels = natural(seed, 64, 64)
    assert bits_apart(pdq(pixels), pdq_by_definition(pixels)) <= 2  # it computes in float32


def test_half_of_the_bits_of_a_pdq_are_ones() -> None:
    ones = {int.from_bytes(pdq(natural(seed, 90, 130)), "big").bit_count() for seed in range(10)}
    assert ones == {128}


def test_a_mirrored_or_turned_picture_has_the_pdq_of_another_picture() -> None:
    pixels = natural(0, 128, 128)
    for changed in (pixels[:, ::-1], pixels[::-1], np.rot90(pixels)):
        assert 80 < bits_apart(pdq(pixels), pdq(np.ascontiguousarray(changed))) < 176


def test_pdq_quality_is_0_for_flat_pictures_and_high_for_those_with_something_in_them() -> None:
    made = pictures()
    assert {pdq_and_quality(made[name])[1] for name in made if name.startswith(("flat", "one pixel"))} == {0}
    assert pdq_and_quality(made["ramp"])[1] < 50
    assert min(pdq_and_quality(natural(seed, 96, 96))[1] for seed in range(5)) > 80
    assert all(0 <= pdq_and_quality(pixels)[1] <= 100 for pixels in made.values())


def test_a_picture_of_up_to_512_pixels_is_hashed_as_it_is_and_a_larger_one_close_to_that() -> None:
    import pdqhash

    for seed, height_px, width_px in ((0, 512, 512), (1, 300, 512), (2, 1004, 1600), (3, 700, 520), (4, 40, 1600)):
        pixels = natural(seed, height_px, width_px)
        whole = np.packbits(pdqhash.compute(pixels)[0].astype(np.bool_)).tobytes()
        apart = bits_apart(pdq(pixels), whole)
        assert apart == 0 if width_px <= 512 else apart <= 20
    assert len(pdq(np.zeros((3, 4000, 3), np.uint8))) == 32


def test_pdq_comes_as_bytes_with_its_quality_and_a_broken_picture_has_neither() -> None:
    pixels = natural(0, 80, 80)
    operator = ImageHash(kind="pdq")
    assert operator.adds == (PDQ, PDQ_QUALITY)
    output = operator.run(batch([png(pixels), b"no picture"]), None)
    assert list(output.values["pdq"]) == [pdq(pixels), None]
    assert list(output.values["pdq_quality"]) == [pdq_and_quality(pixels)[1], None]
    assert set(output.failures) == {1}
    assert not PDQ.is_embedding
