"""The form in which pictures are stored: which are refused, their size, format and quality.

`resize` and what belongs to it means what it means for img2dataset 1.47.0, so that its users can switch. Without
`resize`, pictures are only ever made smaller. Everything here is part of `download`'s fingerprint.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.pixels import DecodeError

TOO_SMALL, TOO_LARGE_AREA, BAD_ASPECT_RATIO = "too_small", "too_large_area", "bad_aspect_ratio"

Resize = Literal["no", "border", "keep_ratio", "keep_ratio_largest", "center_crop"]
_DEFAULT_QUALITY = {"jpg": 95, "png": 6, "webp": 95}
_QUALITIES = {"jpg": (1, 100), "png": (0, 9), "webp": (1, 100)}


class PictureForm(BaseModel):
    """How fetched pictures are stored. Frozen and picklable: it goes to the processes that decode."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    longest_side_px: int | None = Field(None, description="shrink so that the longest side has at most this", gt=0)
    shortest_side_px: int | None = Field(None, description="shrink so that the shortest side has at most this", gt=0)
    resize: Resize | None = Field(
        None,
        description="img2dataset's modes: keep_ratio gives the shortest side image_size_px, keep_ratio_largest the "
        "longest, center_crop cuts a square out of the first, border adds white to the second; smaller pictures are "
        "enlarged",
    )
    image_size_px: int | None = Field(None, description="the side that `resize` aims at", gt=0)
    resize_only_if_bigger: bool = Field(False, description="let `resize` leave smaller pictures as they are")
    min_image_size_px: int = Field(0, description="pictures with a shorter side fail as too_small", ge=0)
    max_image_area_px: int | None = Field(None, description="pictures with more pixels fail as too_large_area", gt=0)
    max_aspect_ratio: float | None = Field(
        None, description="pictures whose long side is more times the short one fail as bad_aspect_ratio", ge=1
    )
    encode_format: Literal["jpg", "png", "webp"] | None = Field(
        None,
        description="format of every stored picture; without it, what `resize` touches becomes JPEG, and without "
        "`resize` JPEG, PNG and WebP of the wanted size stay what they are",
    )
    encode_quality: int | None = Field(
        None, description="of JPEG and WebP 1 to 100 (95 unless said), of PNG the compression 0 to 9 (6)", ge=0, le=100
    )
    skip_reencode: bool = Field(
        True, description="store pictures that have the wanted size and format as they came, without metadata"
    )
    disable_all_reencoding: bool = Field(
        False,
        description="store every picture as it came, without metadata and not turned upright; other formats than "
        "JPEG, PNG and WebP fail as needs_reencoding",
    )
    decode: Literal["full", "scaled", "planes"] = Field(
        "full",
        description="how JPEGs are decoded that are made smaller. scaled: by the DCT to at least twice the wanted "
        "size; a tenth less time, and PSNR to full above 40 dB for 95 % of a web corpus at 256 px. planes: brightness "
        "and colour are averaged apart; a twelfth less time, median 50 dB, above 43 dB for 95 %; needs the system's "
        "libturbojpeg",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "PictureForm":
        sides = [name for name in ("longest_side_px", "shortest_side_px") if getattr(self, name) is not None]
        if self.resize and sides:
            raise ValueError(f"{sides[0]} shrinks by our rules and resize by img2dataset's; say one of them")
        if self.resize in (None, "no") and (self.image_size_px or self.resize_only_if_bigger):
            name = "image_size_px" if self.image_size_px else "resize_only_if_bigger"
            raise ValueError(f"{name} belongs to resize: border, keep_ratio, keep_ratio_largest or center_crop")
        if self.resize not in (None, "no") and self.image_size_px is None:
            raise ValueError(f"resize: {self.resize} needs image_size_px, the side that it aims at")
        least, most = _QUALITIES[self.encoded_as]
        if self.encode_quality is not None and not least <= self.encode_quality <= most:
            raise ValueError(f"encode_quality of {self.encoded_as} lies from {least} to {most}")
        changes = [*sides, *(name for name in ("resize", "encode_format", "encode_quality") if getattr(self, name))]
        changes += [] if self.skip_reencode else ["skip_reencode: false"]
        if self.disable_all_reencoding and changes:
            raise ValueError(f"{changes[0]} encodes pictures anew, which disable_all_reencoding rules out")
        return self

    @property
    def encoded_as(self) -> Literal["jpg", "png", "webp"]:
        """The format of pictures that are encoded anew."""
        return self.encode_format or "jpg"

    @property
    def quality(self) -> int:
        """The quality (of PNG: the compression) of pictures that are encoded anew."""
        return _DEFAULT_QUALITY[self.encoded_as] if self.encode_quality is None else self.encode_quality

    def keeps_format(self, name: str) -> bool:
        """Whether a picture of format `name` (jpg, png or webp) may be stored as it came, if its size fits."""
        if not self.skip_reencode:
            return False
        return name == self.encode_format if self.encode_format else self.resize is None or name == "jpg"

    def require_wanted(self, width_px: int, height_px: int) -> None:
        """Raise DecodeError where pictures of that size are refused."""
        size, short, long = f"{width_px} × {height_px} pixels", *sorted((width_px, height_px))
        if short < self.min_image_size_px:
            raise DecodeError(f"{size}; min_image_size_px is {self.min_image_size_px}", TOO_SMALL)
        if self.max_image_area_px is not None and short * long > self.max_image_area_px:
            raise DecodeError(f"{size}; max_image_area_px is {self.max_image_area_px}", TOO_LARGE_AREA)
        if self.max_aspect_ratio is not None and long / short > self.max_aspect_ratio:
            raise DecodeError(f"{size}; max_aspect_ratio is {self.max_aspect_ratio:g}", BAD_ASPECT_RATIO)


AS_THEY_COME = PictureForm()
