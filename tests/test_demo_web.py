"""The demo's generated web: what is planted is there, and is told truly."""

import hashlib
import http.client
import io
import json
import time
from collections import Counter
from collections.abc import Iterator
from itertools import combinations, pairwise, product
from pathlib import Path

import imagehash
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, UnidentifiedImageError

from curation.operator import Batch
from curation.operators.language import Language
from flows.demo_web import languages
from flows.demo_web.captions import ENGLISH, english, templates, without_content
from flows.demo_web.clean import CLASSES, write_held_out, write_trusted
from flows.demo_web.pictures import draw, encode, random_encoding
from flows.demo_web.planting import plan_web
from flows.demo_web.scenes import BACKGROUNDS, COLOURS, POSITIONS, SHAPES, SIZES, WEB, Scene, random_scene
from flows.demo_web.server import Behaviour, DemoServer, serve
from flows.demo_web.shares import GOOD, KINDS, TINY_PX, counts
from flows.demo_web.web import Web, make_web

_BASE = "http://127.0.0.1:8099"


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Web:
    """A web of 400 pairs."""
    return make_web(tmp_path_factory.mktemp("web"), _BASE, pairs=400, seed=3)


def _truth(web: Web) -> list[dict[str, object]]:
    return pq.read_table(web.truth).to_pylist()


def _file(web: Web, url: object) -> Path:
    return web.files / str(url).removeprefix(f"{_BASE}/")


def _hash(data: bytes) -> int:
    with Image.open(io.BytesIO(data)) as image:
        return int(str(imagehash.phash(image.convert("RGB"))), 16)


def test_one_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        make_web(tmp_path / name, _BASE, pairs=40, seed=seed)
    one, again, other = (
        {str(f.relative_to(tmp_path / n)): f.read_bytes() for f in (tmp_path / n).rglob("*") if f.is_file()}
        for n in ("one", "again", "other")
    )
    assert one == again
    assert one["truth.parquet"] != other["truth.parquet"]


def test_hashes_of_different_pictures_stay_apart() -> None:
    rng = np.random.default_rng(0)
    pictures = [encode(draw(random_scene(0, WEB, i)), random_encoding(rng)) for i in range(400)]
    hashes_N = np.array([_hash(picture) for picture in pictures], np.uint64)
    distances_NN = np.bitwise_count(hashes_N[:, None] ^ hashes_N[None])
    near = int((distances_NN[np.triu_indices(len(hashes_N), 1)] <= 4).sum())
    assert near == 0


def test_a_scene_is_painted_in_its_colour_in_its_quarter() -> None:
    for shape, colour, position in product(SHAPES, ("red", "green", "blue"), POSITIONS):
        scene = Scene(shape, colour, "large", position, "striped", seed=(7,))
        pixels_HWC = np.asarray(draw(scene, (128, 128))).astype(int)
        channel = ("red", "green", "blue").index(colour)
        others = [c for c in range(3) if c != channel]
        painted_HW = (pixels_HWC[..., channel] - pixels_HWC[..., others].max(2)) > 70
        y, x = np.argwhere(painted_HW).mean(0)
        assert painted_HW.sum() > 300
        assert ("top" if y < 64 else "bottom", "left" if x < 64 else "right") == tuple(position.split())


def test_the_shapes_differ_and_are_of_like_area() -> None:
    masks = {}
    for shape in SHAPES:
        pixels_HWC = np.asarray(draw(Scene(shape, "red", "large", "top left", "cloudy", seed=(5,)), (200, 200)))
        masks[shape] = (pixels_HWC[..., 0].astype(int) - pixels_HWC[..., 1]) > 90
    areas = {shape: mask.sum() for shape, mask in masks.items()}
    assert max(areas.values()) < 2.2 * min(areas.values())
    for one, other in pairwise(SHAPES):
        assert (masks[one] ^ masks[other]).sum() > 0.12 * areas[one]


def test_the_table_has_the_planted_counts_and_columns_of_its_own(web: Web) -> None:
    table = pq.read_table(web.pairs)
    assert table.column_names == ["url", "caption", "source_id", "site"]
    assert table.num_rows == 400
    assert web.counts == {kind: rows for kind, rows in counts(400).items() if rows}
    truth = _truth(web)
    assert sum(int(str(row["rows"])) for row in truth) == 400
    told = Counter(kind for row in truth for kind in row["kinds"])  # type: ignore[attr-defined]
    assert told == Counter(web.counts)


def test_truth_has_one_row_per_pair_of_url_and_caption(web: Web) -> None:
    pairs = {(row["url"], row["caption"]) for row in pq.read_table(web.pairs).to_pylist()}
    truth = _truth(web)
    assert {(row["url"], row["caption"]) for row in truth} == pairs
    assert len(truth) == len(pairs)
    assert all(row["kind"] == GOOD for row in truth if row["rows"] == 2)


def test_shares_leave_more_than_half_of_the_pairs_right() -> None:
    planted = counts(3000)
    assert sum(planted.values()) == 3000
    harmless = sum(planted[kind] for kind in (GOOD, "slow", "server_error_once", "duplicate_row"))
    copies = sum(planted[kind] for kind in ("exact_duplicate", "near_duplicate", "second_caption"))
    assert harmless + copies > 0.55 * 3000
    assert min(planted.values()) >= 3


def test_exact_duplicates_have_the_bytes_of_their_originals(web: Web) -> None:
    rows = [row for row in _truth(web) if row["kind"] == "exact_duplicate"]
    assert rows
    for row in rows:
        assert row["url"] != row["original"]
        assert _file(web, row["url"]).read_bytes() == _file(web, row["original"]).read_bytes()


def test_near_duplicates_have_other_bytes_and_nearly_always_a_hash_within_four_bits(web: Web) -> None:
    distances = []
    for row in _truth(web):
        if row["kind"] == "near_duplicate":
            copy, original = _file(web, row["url"]).read_bytes(), _file(web, row["original"]).read_bytes()
            assert copy != original
            with Image.open(io.BytesIO(copy)) as small, Image.open(io.BytesIO(original)) as large:
                assert TINY_PX < min(small.size) < min(large.size)
            distances.append((_hash(copy) ^ _hash(original)).bit_count())
    assert len(distances) > 20
    assert np.mean(np.array(distances) <= 4) >= 0.95


def test_copies_show_the_picture_of_their_original_and_only_they_share_one(web: Web) -> None:
    truth = _truth(web)
    pictures = {row["url"]: row["picture"] for row in truth}
    shared = Counter(row["picture"] for row in truth)
    for row in truth:
        if row["original"]:
            assert row["picture"] == pictures[row["original"]]
        elif row["kind"] != GOOD:
            assert shared[row["picture"]] == 1


def test_only_tiny_pictures_have_a_shorter_side_below_the_limit(web: Web) -> None:
    for row in _truth(web):
        if row["kind"] not in ("dead_link", "broken_file"):
            with Image.open(_file(web, row["url"])) as image:
                assert (min(image.size) < TINY_PX) == (row["kind"] == "tiny_image")


def test_broken_files_cannot_be_decoded(web: Web) -> None:
    rows = [row for row in _truth(web) if row["kind"] == "broken_file"]
    assert rows
    for row in rows:
        with pytest.raises((UnidentifiedImageError, OSError)), Image.open(_file(web, row["url"])) as image:
            image.load()


def test_captions_are_right_unless_they_are_planted_wrong(web: Web) -> None:
    for row in _truth(web):
        caption = str(row["caption"])
        names = (str(row["colour"]) in caption, str(row["shape"]) in caption)
        if row["kind"] == "wrong_caption":
            assert names == (False, False)
        elif row["kind"] not in ("no_content", "foreign_language"):
            assert names == (True, True)


def test_captions_without_content_have_at_most_two_words_and_captions_with_it_more() -> None:
    rng = np.random.default_rng(0)
    assert max(len(without_content(rng).split()) for _ in range(200)) <= 2
    assert min(len(english(random_scene(0, WEB, i), rng).split()) for i in range(200)) >= 7


def test_the_detector_finds_the_language_of_every_caption() -> None:
    scenes = [random_scene(0, WEB, i) for i in range(60)]
    wanted = [("en", template.format(**vars(scene))) for scene in scenes for template in ENGLISH]
    wanted += [(name, speak(scene)) for scene in scenes for name, speak in languages.LANGUAGES.items()]
    batch = Batch(pa.table({"caption": [caption for _, caption in wanted]}))
    operator = Language()
    found = list(operator.run(batch, operator.open()).values["language"])
    assert found == [language for language, _ in wanted]


def test_every_scene_can_be_told_in_every_language() -> None:
    for values in product(SHAPES, COLOURS, SIZES, POSITIONS, BACKGROUNDS):
        told = {speak(Scene(*values, seed=(0,))) for speak in languages.LANGUAGES.values()}
        assert len(told) == len(languages.LANGUAGES)


def test_prompts_have_one_gap_and_vary_every_other_factor() -> None:
    factors = {"shape": SHAPES, "colour": COLOURS, "size": SIZES, "position": POSITIONS, "background": BACKGROUNDS}
    for label, filled in (("colour", {"colour"}), ("shape", {"shape"}), ("class", {"colour", "shape"})):
        prompts = templates(label)
        assert all(prompt.count("{}") == 1 for prompt in prompts)
        for name, values in factors.items():
            found = {value for value in values if any(value in prompt for prompt in prompts)}
            assert found == (set() if name in filled else set(values))


def test_clean_and_held_out_pictures_are_not_on_the_web(tmp_path: Path, web: Web) -> None:
    trusted = write_trusted(tmp_path / "trusted", pairs=50, seed=3)
    held_out = write_held_out(tmp_path / "held_out", pictures=50, seed=3)
    seeds = {row.scene.seed for row in plan_web(400, 3)}
    assert all(seed[1] == WEB for seed in seeds)
    digests = [
        {hashlib.sha256(f.read_bytes()).digest() for f in folder.rglob("*") if f.suffix in (".jpg", ".png", ".webp")}
        for folder in (web.files, trusted, held_out.folder)
    ]
    assert len(digests[1]) == len(digests[2]) == 50
    assert all(one.isdisjoint(other) for one, other in combinations(digests, 2))


def test_held_out_pictures_carry_their_labels_and_prompts_name_the_classes(tmp_path: Path) -> None:
    held_out = write_held_out(tmp_path, pictures=30)
    lines = [json.loads(line) for line in (held_out.folder / "captions.jsonl").read_text().splitlines()]
    assert len(lines) == 30
    for label, file in held_out.prompts.items():
        prompts = json.loads(file.read_text())
        assert tuple(prompts["classes"]) == CLASSES[label]
        assert all(line[label] in prompts["classes"] and line[label].split()[-1] in line["caption"] for line in lines)
    assert len(CLASSES["class"]) == 30


@pytest.fixture
def served(tmp_path: Path) -> Iterator[DemoServer]:
    """A server of two files with every behaviour."""
    (tmp_path / "a.jpg").write_bytes(b"picture")
    (tmp_path / "ä b.txt").write_text("text")
    behaviours = {
        "/gone": Behaviour(410),
        "/always": Behaviour(500),
        "/late": Behaviour(delay_s=0.2),
        "/silent": Behaviour(manner="silent"),
        "/reset": Behaviour(manner="reset"),
        "/drip": Behaviour(manner="drip"),
        "/a.jpg": Behaviour(503, bad_answers=1),
    }
    with serve(tmp_path, behaviours) as server:
        yield server


def _get(server: DemoServer, path: str, timeout_s: float = 5.0, method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout_s)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_the_server_answers_as_planned_and_counts(served: DemoServer) -> None:
    assert _get(served, "/a.jpg")[0] == 503
    assert _get(served, "/a.jpg") == (200, b"picture")
    assert _get(served, "/a.jpg?size=1", method="HEAD") == (200, b"")
    assert _get(served, "/%C3%A4%20b.txt") == (200, b"text")
    assert [_get(served, path)[0] for path in ("/gone", "/always", "/always", "/nowhere")] == [410, 500, 500, 404]
    assert served.requests() == {
        "/a.jpg": 3, "/%C3%A4%20b.txt": 1, "/gone": 1, "/always": 2, "/nowhere": 1,
    }  # fmt: skip


def test_the_server_serves_nothing_outside_its_folder(served: DemoServer, tmp_path: Path) -> None:
    (tmp_path.parent / "secret.txt").write_text("secret")
    assert _get(served, "/../secret.txt")[0] == 404
    assert _get(served, "/%2e%2e/secret.txt")[0] == 404


def test_the_server_is_late_silent_and_rude_where_it_is_told_to(served: DemoServer) -> None:
    started = time.monotonic()
    assert _get(served, "/late")[0] == 404
    assert time.monotonic() - started >= 0.2
    with pytest.raises(TimeoutError):
        _get(served, "/silent", timeout_s=0.2)
    with pytest.raises(ConnectionError):
        _get(served, "/reset")
    with pytest.raises(TimeoutError):
        _get(served, "/drip", timeout_s=0.2)


def test_one_connection_serves_many_requests(served: DemoServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=5)
    for _ in range(50):
        connection.request("GET", "/a.jpg")
        connection.getresponse().read()
    connection.close()
    assert served.requests()["/a.jpg"] == 50


def test_a_stopped_server_frees_its_port_even_while_a_client_waits(tmp_path: Path) -> None:
    server = serve(tmp_path, {"/silent": Behaviour(manner="silent")})
    waiting = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    waiting.request("GET", "/silent")
    started = time.monotonic()
    server.stop()
    assert time.monotonic() - started < 2
    with pytest.raises(ConnectionError):
        waiting.getresponse()
    waiting.close()
    with DemoServer(tmp_path, server.port) as again:
        assert _get(again, "/nothing")[0] == 404


def test_every_path_that_misbehaves_is_planted_so(web: Web) -> None:
    kinds = {str(row["url"]).removeprefix(_BASE): row["kind"] for row in _truth(web)}
    assert {kinds[path] for path in web.behaviours} <= set(KINDS)
    assert len(web.behaviours) == sum(
        web.counts.get(kind, 0)
        for kind in ("slow", "server_error_once", "dead_link", "server_error", "never_answers", "connection_reset")
    )
