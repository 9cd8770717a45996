"""PDQ: a picture as 256 bits (Meta; https://github.com/facebook/ThreatExchange/tree/main/pdq).

One home for it: hashes that an operator stores and hashes that a user's block list is compared with are the same.
"""

import numpy as np

LONGEST_SIDE_PX = 512
SAMPLED_PX = 64  # PDQ looks at 64 × 64 samples: no side is reduced below that


def pdq_and_quality(pixels_HWC: np.ndarray) -> tuple[bytes, int]:
    """The PDQ hash of RGB uint8 pixels as 32 bytes, first hex digit first as ThreatExchange prints it, and its quality.

    Quality is 0 (flat) to 100; up to 49 the bits are mostly noise. A picture beyond 512 pixels is reduced to these
    first, as ThreatExchange's own program does: its filter over all pixels is nearly the whole cost (19 ms become 8 at
    1600 × 1004). Pillow's box filter does it, for it computes in integers and so gives the same bits on every machine;
    OpenCV's area filter is a third quicker, in floats. The hash then lies about 10 bits from that of all pixels; up to
    31 count as the same picture.
    """
    import pdqhash
    from PIL import Image

    height_px, width_px = pixels_HWC.shape[:2]
    longest_px = max(height_px, width_px)
    if longest_px > LONGEST_SIDE_PX:
        width_px, height_px = (
            max(side_px * LONGEST_SIDE_PX // longest_px, min(side_px, SAMPLED_PX)) for side_px in (width_px, height_px)
        )
        pixels_HWC = np.asarray(Image.fromarray(pixels_HWC).resize((width_px, height_px), Image.Resampling.BOX))
    bits_256, quality = pdqhash.compute(np.ascontiguousarray(pixels_HWC))
    return np.packbits(bits_256.astype(np.bool_)).tobytes(), int(quality)
