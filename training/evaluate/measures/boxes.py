"""Boxes: how much of two is in common, and what box a model's words name.

A box is (left, top, right, bottom) in pixels, x to the right and y down.
"""

import math
import re
from typing import Any

Box = tuple[float, float, float, float]
_NUMBER = r"[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?"
_FOUR = re.compile(rf"[\[({{<]?\s*({_NUMBER})[\s,]+({_NUMBER})[)\s,(]+({_NUMBER})[\s,]+({_NUMBER})")
_THOUSANDTHS = ("<box>", "<|box_start|>")  # as Qwen-VL and Qwen2-VL write, (left,top),(right,bottom)


def iou(a: Box, b: Box) -> float:
    """Area in common over area of both together, and 0 where either has no area or a number is not finite."""
    areas = [(box[2] - box[0]) * (box[3] - box[1]) if box[2] > box[0] and box[3] > box[1] else 0.0 for box in (a, b)]
    if not all(map(math.isfinite, (*a, *b))) or not all(areas):
        return 0.0
    width, height = (min(a[side + 2], b[side + 2]) - max(a[side], b[side]) for side in (0, 1))
    common = max(0.0, width) * max(0.0, height)
    return common / (areas[0] + areas[1] - common)


def from_xywh(left: float, top: float, width: float, height: float) -> Box:
    """A box by its corner and size, as COCO has them."""
    return (left, top, left + width, top + height)


def box_in(text: str, width_px: float, height_px: float) -> Box | None:
    """The first four numbers that stand together in a text, as a box in a picture of a size; None where there are none.

    Numbers from 0 to 1 are shares of the picture's sides (LLaVA, Shikra), those in <box> tags thousandths of them
    (Qwen-VL); all others are pixels.
    """
    start = max(text.find(tag) for tag in _THOUSANDTHS)
    found = _FOUR.search(text, max(start, 0))
    if found is None:
        return None
    left, top, right, bottom = map(float, found.groups())
    scale = 1000.0 if start >= 0 else 1.0 if max(map(abs, (left, top, right, bottom))) <= 1 else 0.0
    if not scale:
        return (left, top, right, bottom)
    return (left / scale * width_px, top / scale * height_px, right / scale * width_px, bottom / scale * height_px)


def xywh_in(value: Any) -> Box | None:
    """A list of four numbers, as a box by corner and size; None for anything else."""
    try:
        left, top, width, height = map(float, value)
    except (TypeError, ValueError):
        return None
    return from_xywh(left, top, width, height)
