"""From a picture's size to that of its stored form: what it is scaled to, and the frame it is cut or padded to."""

from dataclasses import dataclass
from fractions import Fraction

from curation.fetch.pictures.picture_form import PictureForm

Size = tuple[int, int]  # width_px, height_px


@dataclass(frozen=True)
class Layout:
    """What becomes of a picture's sides: first scaled, then centred in a frame that may be smaller or larger."""

    source: Size
    scaled: Size
    frame: Size

    @property
    def changes(self) -> bool:
        """Whether the stored picture has another size."""
        return self.source != self.scaled or self.scaled != self.frame

    @property
    def shrinks(self) -> bool:
        """Whether the picture is scaled, and enlarged on no side."""
        return self.source != self.scaled and all(a <= b for a, b in zip(self.scaled, self.source, strict=True))


def layout(source: Size, form: PictureForm) -> Layout:
    """What a form makes of the sides of an upright picture."""
    if form.resize is None:
        scaled = shrunk_size(*source, form.longest_side_px, form.shortest_side_px)
        return Layout(source, scaled, scaled)
    if form.resize == "no":
        return Layout(source, source, source)
    by_shortest = form.resize in ("keep_ratio", "center_crop")
    side_px = min(source) if by_shortest else max(source)
    wanted_px = form.image_size_px
    assert wanted_px is not None, "PictureForm asks for it"
    if form.resize_only_if_bigger and side_px <= wanted_px:
        return Layout(source, source, source)
    # albumentations 1.4 rounds so, halves to even, and a published data set's sizes came about by it
    width_px, height_px = (max(1, round(side * (wanted_px / side_px))) for side in source)
    square = form.resize in ("center_crop", "border")
    return Layout(source, (width_px, height_px), (wanted_px, wanted_px) if square else (width_px, height_px))


def shrunk_size(width_px: int, height_px: int, longest_side_px: int | None, shortest_side_px: int | None) -> Size:
    """The size under which neither limit is exceeded, in the same proportions; no side becomes 0."""
    limits = [(longest_side_px, max(width_px, height_px)), (shortest_side_px, min(width_px, height_px))]
    scale = min([Fraction(1), *(Fraction(most_px, side_px) for most_px, side_px in limits if most_px is not None)])
    return _scaled(width_px, scale), _scaled(height_px, scale)


def _scaled(side_px: int, scale: Fraction) -> int:
    return max(1, int(side_px * scale + Fraction(1, 2)))
