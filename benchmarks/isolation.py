"""What decoding in a child process costs: CPU time per picture, parent and child together, against decoding inline.

    python benchmarks/isolation.py [ROUNDS]

The same pictures, shrunk to 256 px, inline and isolated in turn; the median over the rounds of both and of their
difference. On a busy machine a round differs by more than what is measured. So the way alone is measured too: the same
bytes there and 20 kB back, with nothing decoded; what it leaves out is that two processes share the caches.
"""

import io
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial

import numpy as np
import psutil
from PIL import Image

from curation.fetch.isolation.decoding import Decoder, InlineDecoder
from curation.fetch.isolation.isolated import IsolatedDecoder
from curation.fetch.pictures.picture_form import PictureForm
from curation.fetch.pictures.readiness import make_ready
from curation.fetch.pictures.to_stored import Stored, to_stored

PICTURES = 200
GOAL_MS = 0.3


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    bodies = list(_pictures())
    form = PictureForm(longest_side_px=256)
    shrinking, ready = partial(to_stored, form=form), partial(make_ready, form)
    differences, inline_ms, isolated_ms, way_ms = [], [], [], []
    began = _cpu_s()
    with closing(IsolatedDecoder(shrinking, prepare=ready)) as isolated, closing(IsolatedDecoder(not_decoded)) as way:
        _decode(isolated, bodies[:1])
        start_ms = 1000 * (_cpu_s() - began)
        inline = InlineDecoder(shrinking)
        _decode(way, bodies)
        for _ in range(rounds):
            inline_ms.append(_decode(inline, bodies))
            isolated_ms.append(_decode(isolated, bodies))
            way_ms.append(_decode(way, bodies))
            differences.append(isolated_ms[-1] - inline_ms[-1])
    mean_kb = sum(map(len, bodies)) / len(bodies) / 1000
    print(f"{len(bodies)} JPEGs of {mean_kb:.0f} kB on average, {rounds} rounds, CPU ms per picture (median):")
    print(f"  inline {statistics.median(inline_ms):.3f}, isolated {statistics.median(isolated_ms):.3f}")
    low, _, high = statistics.quantiles(differences, n=4)
    print(f"  difference {statistics.median(differences):+.3f} (half of the rounds within {low:+.3f} … {high:+.3f})")
    print(f"  the way there and back without decoding {statistics.median(way_ms):.3f}")
    print(f"  goal < {GOAL_MS}; a child's start costs {start_ms:.0f} ms of CPU, once per worker and 10,000 pictures")


def not_decoded(body: bytes) -> Stored:
    """Something that passes for a picture."""
    return Stored(b"\xff\xd8\xff" + body[:20_000], "jpg", 256, 192)


def _pictures() -> Iterator[bytes]:
    """JPEGs in the sizes of the web: half below 0.4 megapixels, a few of several."""
    for seed in range(PICTURES):
        dice = np.random.default_rng(seed)
        width_px = int(np.clip(dice.lognormal(6.55, 0.5), 150, 3000))
        spots = dice.integers(0, 256, (24, 32, 3), np.uint8)
        smooth = np.asarray(Image.fromarray(spots).resize((width_px, width_px * 3 // 4), Image.Resampling.BICUBIC))
        grain = dice.normal(0, 7, smooth.shape)
        target = io.BytesIO()
        Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)).save(target, "JPEG", quality=82)
        yield target.getvalue()


def _decode(decoder: Decoder, bodies: list[bytes]) -> float:
    before = _cpu_s()
    for _ in decoder.stream(iter(list(enumerate(bodies)))):
        pass
    return 1000 * (_cpu_s() - before) / len(bodies)


def _cpu_s() -> float:
    children = [child.cpu_times() for child in psutil.Process().children()]
    return time.process_time() + sum(times.user + times.system for times in children)


if __name__ == "__main__":
    import isolation  # under its own name, by which the child can import it

    isolation.main()
