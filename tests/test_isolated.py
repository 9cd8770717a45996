"""Decoding in a child process: what a hostile picture can do to it, and that it costs nobody but itself.

The children are real. What they may still do is read files that their user may read, use the processor until they are
killed, and give a wrong picture for bytes that took their decoder over.
"""

import fcntl
import functools
import gc
import io
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest
from conftest import SmallWeb, run_job, textured_jpeg, write_table
from own_operators import fate_of
from PIL import Image
from poison_decoders import ignoring_options, poison, poison_in_company, to_picture

from curation import capture
from curation.fetch import fetcher
from curation.fetch.isolation.confinement import Limits
from curation.fetch.isolation.decoder_memory import MOST_PICTURES
from curation.fetch.isolation.decoder_process import _sealed_memory
from curation.fetch.isolation.decoding import Decoder, InlineDecoder
from curation.fetch.isolation.isolated import IsolatedDecoder
from curation.fetch.pictures.picture_form import AS_THEY_COME, PictureForm
from curation.fetch.pictures.readiness import make_ready
from curation.fetch.pictures.to_stored import Stored, to_stored
from curation.operator import Batch
from curation.operators.download import Download
from schemas.errors import RunError
from schemas.pixels import DecodeError

READY = partial(make_ready, AS_THEY_COME)

FEW = Limits(memory_bytes=512 * 2**20, picture_s=30.0)
GOOD = [textured_jpeg(seed) for seed in range(8)]
CRASH, TIMEOUT, OOM = "decode_crash", "decode_timeout", "decode_oom"
ROOT = Path(__file__).parents[1]


def answers(decoder: Decoder, bodies: Sequence[bytes]) -> list[Stored | DecodeError]:
    """What becomes of each body, in the bodies' order; each is answered exactly once."""
    answered = list(decoder.stream(iter(list(enumerate(bodies)))))
    assert sorted(place for place, _ in answered) == list(range(len(bodies)))
    return [answer for _, answer in sorted(answered, key=lambda one: one[0]) if answer is not None]


def status(answer: Stored | DecodeError) -> str:
    return answer.status if isinstance(answer, DecodeError) else "ok"


def plain(answer: Stored | DecodeError) -> object:
    return (answer.status, str(answer)) if isinstance(answer, DecodeError) else answer


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "decoder_child" in " ".join(child.cmdline())]


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def decoder() -> Iterator[IsolatedDecoder]:
    with closing(IsolatedDecoder(to_picture, limits=FEW)) as made:
        yield made


DEADLY = {
    "segfault": (CRASH, "SIGSEGV"),
    "abort": (CRASH, "SIGABRT"),
    "exit": (CRASH, "exit code 0"),
    "sys_exit": (CRASH, "exit code 3"),
    "killed": (OOM, "SIGKILL"),
    "memory": (OOM, "memory"),
    "memory_within_pillow": (OOM, "MemoryError"),
    "forged_word": (CRASH, "not given"),
    "garbled_word": (CRASH, "a message that is none"),
    "all_done": (CRASH, "without the nonce"),
    "answers_everywhere": (CRASH, "exit code 0"),
    "answer_outside": (CRASH, "outside"),
    "hang_up": (CRASH, "hung up"),
    "no_picture": (CRASH, "no picture of the format"),
    "wrong_format": (CRASH, "no picture of the format"),
    "impossible_size": (CRASH, "impossible size"),
    "unknown_format": (CRASH, "exit code 1"),
}
HANGING = dict.fromkeys(("loop", "sleep", "stopped"), (TIMEOUT, "after 1 s"))
FORBIDDEN = {
    "fork_bomb": (CRASH, "PermissionError"),
    "file": (CRASH, "PermissionError"),
    "socket": (CRASH, "PermissionError"),
    "program": (CRASH, "PermissionError"),
    "kill_parent": (CRASH, "PermissionError"),
    "raise_limit": (CRASH, "not allowed"),
    "key_error": (CRASH, "KeyError"),
    "thread_bomb": (CRASH, "can't start new thread"),
}


@pytest.mark.parametrize(
    ("kinds", "picture_s"), [(DEADLY, 30), (HANGING, 1), (FORBIDDEN, 30)], ids=["deadly", "hanging", "forbidden"]
)
def test_poisons_are_quarantined_each_for_what_it_did_and_never_their_neighbours(
    kinds: dict[str, tuple[str, str]], picture_s: float
) -> None:
    others = children()
    decoder = IsolatedDecoder(to_picture, limits=replace(FEW, picture_s=picture_s))
    bodies = [body for kind in kinds for body in (GOOD[len(kind) % 8], poison(kind, GOOD[0]), GOOD[0])]
    random.Random(0).shuffle(bodies)
    for body, answer in zip(bodies, answers(decoder, bodies), strict=True):
        kind = body.split(b":", 2)[1].decode() if body.startswith(b"POISON:") else None
        assert (kind, status(answer)) == (kind, kinds[kind][0] if kind else "ok"), plain(answer)
        if kind:
            assert kinds[kind][1] in str(answer), kind
            assert kind in FORBIDDEN or str(answer).endswith("in company and alone") or "emory" in str(answer)
        else:
            assert answer == to_stored(body)
    assert not Path("/tmp/pairmill-poison-was-here").exists()
    mine = [child for child in children() if child not in others]
    assert len(mine) <= 1
    assert not [started for child in mine for started in child.children()]
    decoder.close()


def test_a_decoder_that_makes_noise_is_not_heard(decoder: IsolatedDecoder, capfd: pytest.CaptureFixture[str]) -> None:
    assert answers(decoder, [poison("noise", GOOD[0]), GOOD[1]]) == [to_stored(GOOD[0]), to_stored(GOOD[1])]
    assert capfd.readouterr() == ("", "")


def test_a_decoder_sees_nothing_of_its_parents_environment(
    decoder: IsolatedDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("https_proxy", "AWS_SECRET_ACCESS_KEY", "PYTHONPATH", "LD_PRELOAD"):
        monkeypatch.setenv(name, "x")
    (answer,) = answers(decoder, [poison("environment")])
    seen = set(str(answer).split())
    assert seen - {"LC_CTYPE", "LD_LIBRARY_PATH", "NUMBA_CACHE_DIR", "TMPDIR"} == {
        "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "NUMBA_NUM_THREADS", "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS", "PATH", "/",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["segfault", "exit", "memory", "forged_word"])
def test_what_fails_in_company_but_not_alone_is_not_at_fault(decoder: IsolatedDecoder, kind: str) -> None:
    bodies = [*GOOD, poison_in_company(kind, GOOD[0]), *GOOD]
    assert answers(decoder, bodies) == [to_stored(body) for body in (*GOOD, GOOD[0], *GOOD)]


def test_pictures_are_equal_to_those_decoded_inline() -> None:
    bodies = [made_picture(seed) for seed in range(100)]
    shrinking = partial(to_stored, form=PictureForm(longest_side_px=64))
    with closing(IsolatedDecoder(shrinking, prepare=READY)) as isolated:
        assert [*map(plain, answers(isolated, bodies))] == [*map(plain, answers(InlineDecoder(shrinking), bodies))]
    assert len({status(answer) for answer in answers(InlineDecoder(shrinking), bodies)}) > 1


@functools.cache
def made_picture(seed: int) -> bytes:
    """A picture of any kind and size, or what is none."""
    dice = random.Random(seed)
    size = (dice.randint(1, 300), dice.randint(1, 300))
    spots = np.random.default_rng(seed).integers(0, 256, (6, 7, 4), np.uint8)
    picture = Image.fromarray(spots, "RGBA").resize(size)
    kind = dice.choice(["JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP", "cut"])
    if kind in ("JPEG", "cut"):
        picture = picture.convert(dice.choice(["RGB", "L", "CMYK"]))
    target = io.BytesIO()
    picture.save(target, "JPEG" if kind == "cut" else kind)
    return target.getvalue()[: -200 if kind == "cut" else None]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_mangled_pictures_have_a_status_and_do_not_cost_more_than_themselves(kind: str) -> None:
    dice, target = random.Random(kind), io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 50, 3), np.uint8)).save(target, kind)
    bodies = [mangled(target.getvalue(), dice) for _ in range(150)]
    with closing(IsolatedDecoder(to_stored, prepare=READY)) as decoder:
        mangled_ones = answers(decoder, [*bodies, GOOD[0]])
    assert mangled_ones.pop() == to_stored(GOOD[0])
    known = {"ok", "decode_error", "not_an_image", "too_many_pixels"}
    assert {status(answer) for answer in mangled_ones} <= known


def mangled(picture: bytes, dice: random.Random) -> bytes:
    """A picture with bits flipped, cut, or parts put where they do not belong."""
    made = bytearray(picture)
    for _ in range(dice.randint(1, 12)):
        at, to = sorted(dice.randrange(len(made) + 1) for _ in range(2))
        how = dice.randrange(4)
        if how == 0 and at < len(made):
            made[at] ^= 1 << dice.randrange(8)
        elif how == 1 and at < len(made):
            made[at] = dice.choice([0, 0x7F, 0x80, 0xFF])
        elif how == 2:
            made[at:at] = made[at : min(to, at + 64)]
        elif dice.random() < 0.2:
            del made[at:to]
    return bytes(made)


def test_a_picture_larger_than_a_batch_goes_alone(decoder: IsolatedDecoder) -> None:
    padded = GOOD[0] + bytes(20 * 2**20)
    assert answers(decoder, [GOOD[1], padded, GOOD[2]]) == [to_stored(body) for body in (GOOD[1], padded, GOOD[2])]


def test_answers_that_have_no_room_beside_others_come_in_a_batch_of_their_own(decoder: IsolatedDecoder) -> None:
    found = answers(decoder, [poison("huge", b"%d" % place) for place in range(9)])
    assert [len(one.bytes) for one in found if isinstance(one, Stored)] == [50 * 2**20 + place for place in range(9)]
    assert decoder._decoded == 9  # by one child
    assert psutil.Process().memory_full_info().shared < 2**30


def test_a_picture_too_large_for_the_shared_memory_is_refused_alike_everywhere(decoder: IsolatedDecoder) -> None:
    bodies = [bytes(129 * 2**20), GOOD[0], poison("too_huge")]
    for one in (decoder, InlineDecoder(to_picture)):
        assert [status(answer) for answer in answers(one, bodies)] == ["too_large", "ok", "too_large"]


def test_arrivals_without_bytes_pass_through_at_once_and_answers_come_while_others_are_awaited(
    decoder: IsolatedDecoder,
) -> None:
    handed: list[int] = []

    def arrivals() -> Iterator[tuple[int, bytes | None] | None]:
        yield 0, None
        assert handed == [0]
        yield 1, GOOD[0]
        began = time.monotonic()
        while handed == [0]:  # the picture is decoded though no other follows
            assert time.monotonic() - began < 20
            time.sleep(0.02)
            yield None

    for place, _ in decoder.stream(arrivals()):
        handed.append(place)
    assert handed == [0, 1]


def test_a_child_killed_while_idle_is_replaced_and_nobody_is_blamed(decoder: IsolatedDecoder) -> None:
    for _ in range(5):
        assert answers(decoder, GOOD[:2]) == [to_stored(body) for body in GOOD[:2]]
        (child,) = children()
        child.kill()
        child.wait()


def test_a_child_lost_before_it_was_heard_of_at_all_is_laid_to_the_picture_that_it_had(
    decoder: IsolatedDecoder,
) -> None:
    def arrivals() -> Iterator[tuple[int, bytes]]:
        yield 0, poison("exit")
        assert decoder._child is not None
        decoder._child._process.wait(20)
        yield 1, GOOD[0] + bytes(9 * 2**20)

    found = dict(decoder.stream(arrivals()))
    assert [status(found[place]) for place in (0, 1)] == [CRASH, "ok"]  # type: ignore[arg-type]


def test_an_abandoned_stream_leaves_no_answers_to_the_next(decoder: IsolatedDecoder) -> None:
    stream = decoder.stream(iter(list(enumerate(GOOD * 20))))
    next(stream)
    stream.close()
    assert answers(decoder, GOOD[:2]) == [to_stored(body) for body in GOOD[:2]]


def test_a_child_is_replaced_after_its_time() -> None:
    others = {child.pid for child in children()}
    with closing(IsolatedDecoder(to_picture, limits=replace(FEW, pictures=50))) as decoder:
        pids = set()
        for _, answer in decoder.stream(iter(list(enumerate(GOOD * 20)))):
            assert isinstance(answer, Stored)
            pids |= {child.pid for child in children()}
    assert 2 <= len(pids - others) <= 4  # a batch that was sent is finished first


def test_200_batches_leave_nothing_behind() -> None:
    gc.collect()
    before, waiting = descriptors(), children()
    with closing(IsolatedDecoder(to_stored, prepare=READY)) as decoder:
        small = GOOD[:1] * MOST_PICTURES
        answers(decoder, small)
        during = descriptors(), len(children())
        for _ in range(200):
            answers(decoder, small)
        assert (descriptors(), len(children())) == during
    assert (descriptors(), children()) == (before, waiting)


def test_a_decoder_that_is_forgotten_ends_its_child() -> None:
    before = descriptors()
    decoder = IsolatedDecoder(to_stored, prepare=READY)
    answers(decoder, GOOD[:1])
    del decoder
    assert (descriptors(), children()) == (before, [])


def test_a_decoder_that_cannot_start_is_no_pictures_fault() -> None:
    with closing(IsolatedDecoder(partial(to_stored, no_such_option=1))) as decoder:
        assert [status(answer) for answer in answers(decoder, GOOD[:1])] == [CRASH]
    here = sys.modules[__name__]
    unknown = type("Unknown", (), {"__module__": "no_such_module", "__call__": lambda self, _: to_stored(_)})
    sys.modules["no_such_module"] = here
    here.Unknown = unknown  # type: ignore[attr-defined]
    try:
        for broken in (IsolatedDecoder(unknown()), IsolatedDecoder(to_stored, prepare=unknown())):
            with pytest.raises(RunError, match="no_such_module"):
                answers(broken, GOOD)
    finally:
        del sys.modules["no_such_module"]
    assert children() == []


def test_what_is_prepared_may_write_and_what_comes_after_may_not(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with closing(IsolatedDecoder(to_picture, prepare=partial(Path.touch, cache))) as decoder:
        assert [status(answer) for answer in answers(decoder, [GOOD[0], poison("file")])] == ["ok", CRASH]
    assert cache.exists()


def test_a_child_ends_with_its_parent_even_in_the_midst_of_a_picture() -> None:
    code = (
        "from poison_decoders import *; from curation.fetch.isolation.isolated import IsolatedDecoder\n"
        "stream = IsolatedDecoder(to_picture).stream(iter([(0, poison('loop'))]))\n"
        "import threading; threading.Timer(30, os._exit, (1,)).start(); print('begun', flush=True); next(stream)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        began = time.monotonic()
        while not (found := psutil.Process(parent.pid).children()) or found[0].cpu_times().user < 0.3:
            assert time.monotonic() - began < 20
            time.sleep(0.05)
        parent.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        while any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in found):
            assert time.monotonic() - killed < 1.0
            time.sleep(0.01)


def test_the_shared_memory_cannot_be_cut_short_under_its_reader() -> None:
    fd = _sealed_memory(4096)
    try:
        for size_bytes in (0, 8192):
            with pytest.raises(PermissionError):
                os.ftruncate(fd, size_bytes)
        with pytest.raises(PermissionError):
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    finally:
        os.close(fd)


def urls_of(web: SmallWeb, bodies: Sequence[bytes]) -> list[str]:
    return [web.put(f"/{place}", body) for place, body in enumerate(bodies)]


@pytest.mark.parametrize("isolate", [True, False])
def test_a_download_has_the_same_outcomes_isolated_or_not(web: SmallWeb, isolate: bool) -> None:
    operator = Download(allow_networks=("127.0.0.0/8",), shortest_side_px=64, concurrency=4, isolate=isolate)
    bodies = [made_picture(seed) for seed in range(60)]
    table = pa.table({"key": [f"{i:032x}" for i in range(60)], "url": urls_of(web, bodies)})
    output = operator.run(Batch(table, [None] * 60), operator.open())
    for place, body in enumerate(bodies):
        (inline,) = answers(InlineDecoder(partial(to_stored, form=PictureForm(shortest_side_px=64))), [body])
        assert output.stored is not None
        if isinstance(inline, Stored):
            assert output.stored[place] == inline.bytes
        else:
            assert (output.failures[place].status, output.failures[place].error) == plain(inline)
    assert "isolate" not in Download.result_parameters()


def test_a_part_with_poisons_completes_without_them(
    web: SmallWeb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetcher, "to_stored", ignoring_options)
    kinds = ["segfault", "no_picture", "exit"]
    urls = urls_of(web, [*GOOD, *(poison(kind) for kind in kinds)])
    captions = [f"good {place}" for place in range(len(GOOD))] + kinds
    rows = [{"url": url, "caption": caption} for url, caption in zip(urls, captions, strict=True)]
    table = write_table(tmp_path / "pairs.parquet", rows)
    steps = [{"download": {"allow_networks": ["127.0.0.0/8"]}}]
    result = run_job({"name": "set", "store": str(tmp_path / "store"), "source": {"table": table}, "steps": steps})
    fates = fate_of(result.manifest)
    assert {caption: fates[caption] for caption in kinds} == dict.fromkeys(
        kinds, ("failed", "steps[0] download", CRASH)
    )
    assert result.curated == len(GOOD)


def test_a_source_that_brings_a_poison_is_captured_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "to_stored", ignoring_options)
    folder = tmp_path / "photos"
    folder.mkdir()
    for place, body in enumerate([*GOOD[:3], poison("segfault"), *GOOD[3:6]]):
        (folder / f"{place}.jpg").write_bytes(body)
        (folder / f"{place}.txt").write_text(f"picture {place}")
    source = {"folder": str(folder)}
    result = run_job({"name": "set", "store": str(tmp_path / "store"), "source": source, "steps": ["inspect_image"]})
    fates = fate_of(result.manifest)
    assert result.curated == 6
    assert (fates["picture 3"][0], fates["picture 3"][2]) == ("failed", CRASH)
