"""The explorer's server: who may ask, what is refused, and what it says where something is missing."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
from explored_store import HOSTILE as HOSTILE_CAPTION
from explored_store import ROWS, Client, model_folder, run, running
from small_store import add_version, new_store, pair, usual_pairs
from test_query import HOSTILE, SECRET, tree

from curation.analytics.explorer.selecting import Selector
from curation.analytics.explorer.serving import served
from curation.analytics.explorer.story import exact
from curation.analytics.explorer.table import load
from curation.analytics.explorer.thumbnails_ahead import ThumbnailsAhead
from curation.analytics.explorer.wishes import Selection
from curation.analytics.limits import Limits
from curation.analytics.query import connect
from curation.analytics.thumbnails import Pictures
from curation.storage.store import Store
from curation.versions import resolve
from schemas.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("explorer")
    (found / "secret.csv").write_text(f"text\n{SECRET}\n")
    (found / "secret.json").write_text(json.dumps({"text": SECRET}))
    embed = {"clip_embed": {"model": model_folder(found / "model"), "batch_size": 8}}
    other = {**embed, "as": "own", "reads": {"caption": "colour"}}
    run(found, ["inspect_image", {"keep": "score IS NOT NULL"}, embed, "clip_score", other])
    return found


@pytest.fixture(scope="module")
def client(root: Path) -> Iterator[Client]:
    with running(root / "store") as page:
        yield Client(page)


PATHS = ["/", "/?token=wrong", "/page/main.js", "/api/about", "/thumbnail/" + "0" * 32, "/keys.txt", "/nothing"]


@pytest.mark.parametrize("path", PATHS)
def test_without_the_token_nothing_is_answered(client: Client, path: str) -> None:
    host = {"Host": f"127.0.0.1:{client.port}"}
    for cookie in (
        {},
        {"Cookie": f"pairmill-{client.port}=wrong"},
        {"Cookie": f"other={client.token}"},
        {"Cookie": "é;;="},
    ):
        assert client.send("GET", path, headers=host | cookie)[0] == 403
    assert client.send("POST", "/api/select", b"{}", headers=host)[0] == 403


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "[::1]:{port}", "", "127.0.0.1:{port}@evil"],
)
def test_another_host_name_is_refused_even_with_the_token(client: Client, host: str) -> None:
    """A name of somebody else's that is made to mean 127.0.0.1 (DNS rebinding)."""
    headers = client.headers | {"Host": host.format(port=client.port)}
    assert client.send("GET", "/api/about", headers=headers)[0] == 403
    assert client.send("GET", f"/?token={client.token}", headers=headers)[0] == 403


def test_the_token_in_the_address_becomes_a_cookie_and_goes(client: Client) -> None:
    host = {"Host": f"localhost:{client.port}"}
    status, headers, _ = client.send("GET", f"/?token={client.token}", headers=host)
    assert (status, headers["location"]) == (303, "/")
    cookie = headers["set-cookie"].lower()
    assert all(said in cookie for said in ("httponly", "samesite=strict", f"pairmill-{client.port}="))
    own = headers["set-cookie"].split(";")[0]
    for others in ("", 'theirs={"a": 1}; ', "a b/c@d=e; ", 'open="x; '):  # cookies know no ports
        assert client.send("GET", "/", headers=host | {"Cookie": others + own})[0] == 200
    linked = client.send("GET", f"/?token={client.token}", headers=host | {"Sec-Fetch-Site": "cross-site"})
    assert (linked[0], linked[1]["set-cookie"].lower()) == (200, cookie)  # from a notebook's terminal
    assert b'content="0; url=/"' in linked[2]


def test_what_another_page_sends_is_refused(client: Client) -> None:
    for site in ("cross-site", "same-site"):
        assert client.send("POST", "/api/select", b"{}", client.headers | {"Sec-Fetch-Site": site})[0] == 403
    assert client.send("POST", "/api/select", b"{}", client.headers | {"Sec-Fetch-Site": "same-origin"})[0] == 200
    assert client.send("PUT", "/api/select", b"{}")[0] == 405


@pytest.mark.parametrize("path", ["/", "/page/main.js", "/api/about", "/nothing", "/page/../app.py"])
def test_every_answer_has_the_strict_headers(client: Client, path: str) -> None:
    status, headers, body = client.send("GET", path)
    assert status == (404 if path in ("/nothing", "/page/../app.py") else 200)
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "server" not in headers
    assert b"import uvicorn" not in body


def test_no_page_holds_a_script_or_style_in_its_markup_or_names_a_foreign_host() -> None:
    from curation.analytics.explorer.app import PAGE

    for file in sorted(PAGE.iterdir()):
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//[a-z]+\.[a-z]", text), file
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|\bFunction\(", text), file
        if file.suffix == ".html":
            assert not re.search(r"<style|style=|\son[a-z]+=|<script(?![^>]*src=)", text), file


def test_pictures_are_jpegs_of_a_fixed_type_and_missing_ones_are_empty(root: Path, client: Client) -> None:
    rows = client.ask("rows", {"count": ROWS})["rows"]
    with connect(root / "store") as connection:
        (broken,) = [k for (k,) in connection.execute("SELECT key FROM samples WHERE fate = 'failed'").fetchall()]
    for row in rows[:5]:
        for kind in ("thumbnail", "picture"):
            status, headers, body = client.send("GET", f"/{kind}/{row['key']}")
            is_broken = row["key"] == broken
            assert (status, headers.get("content-type")) == ((204, None) if is_broken else (200, "image/jpeg"))
            assert headers["x-content-type-options"] == "nosniff"
            assert body[:3] == (b"" if is_broken else b"\xff\xd8\xff")
    for key in ("0" * 32, "..%2f..%2fsecret.csv", "x'; DROP TABLE loaded; --"):
        assert client.send("GET", f"/thumbnail/{quote(key)}")[0] in (204, 404)


def test_thumbnails_that_newer_pages_overtook_are_given_up_but_still_to_be_had(root: Path) -> None:
    store = Store.existing(root / "store")
    with connect(store.root) as connection:
        keys = [k for (k,) in connection.execute("SELECT key FROM curated ORDER BY key LIMIT 12").fetchall()]
    with closing(ThumbnailsAhead(Pictures(store, resolve(store)))) as thumbnails:
        for number in range(200):
            thumbnails.expect([f"{number:032x}"])
        thumbnails.expect(keys)
        assert all((thumbnails.get(key) or b"").startswith(b"\xff\xd8") for key in keys)
        assert thumbnails.get(f"{100:032x}") is None
        assert len(thumbnails._lately) <= 20


def test_hostile_sql_reads_nothing_and_writes_nothing(root: Path, client: Client) -> None:
    """Statements as predicates, and as what closes the predicate and begins another statement."""
    secret = root / "secret.csv"
    names = {
        "out": root / "written",
        "store": root / "store",
        "secret": secret,
        "secret_json": root / "secret.json",
        "samples": "samples.parquet",
    }
    before = tree(root)
    for template in HOSTILE:
        text = template.format(**names) if "{" in template else template
        if not text.strip() or "\ud800" in text:
            continue
        for sql in (text, f"true) ; {text}; --", f"key IN ({text})", f"true UNION ALL {text}"):
            status, _, body = client.send("POST", "/api/select", json.dumps({"sql": sql}).encode())
            assert status == 400, sql[:100]
            assert SECRET.encode() not in body
    assert tree(root) == before
    assert client.ask("select", {})["rows"] == ROWS


def test_what_is_wrong_with_a_question_is_said_as_duckdb_says_it(client: Client) -> None:
    said = client.ask("select", {"sql": "scor > 0.5"})["error"]
    assert 'Referenced column "scor" not found' in said
    assert '"score"' in said
    assert "is no predicate" in client.ask("select", {"sql": "score + 1"})["error"]
    assert "random() does not give the same value" in client.ask("select", {"sql": "random() < 0.5"})["error"]
    assert "is no signal here; there are" in client.ask("select", {"ranges": {"nothing": [1, 2]}})["error"]
    assert "fraction" in client.ask("threshold", {"signal": "score", "kind": "top", "fraction": "1.5"})["error"]
    assert "either 'fraction'" in client.ask("threshold", {"signal": "score", "kind": "top"})["error"]
    assert "is no step of" in client.ask("threshold", {"signal": "score", "kind": "keep", "before": "x"})["error"]
    assert "Extra inputs" in client.ask("select", {"nothing": 1})["error"]
    assert "has no such key" in client.ask("story/" + "0" * 32)["error"]
    assert client.send("POST", "/api/select", b" " * 300_000)[0] == 413


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("list_sum(range(1000000000)) > width_px", "needs more than 0.3 GB of memory"),
        ("list_sum(list_transform(range(width_px * 10000), lambda x: sqrt(x) % 3)) > 1", "stopped after 0.3 s"),
    ],
)
def test_a_question_that_takes_too_much_is_stopped(root: Path, text: str, said: str) -> None:
    store = Store.existing(root / "store")
    with closing(load(store, resolve(store), Limits(time_s=0.3, memory_gb=0.3))) as table:
        with pytest.raises(InputError, match=said):
            Selector(table).choose(Selection(sql=text))
        assert Selector(table).choose(Selection()).rows == ROWS


def test_rows_are_found_by_likeness_to_a_picture_and_to_a_text(root: Path, client: Client) -> None:
    with connect(root / "store") as connection:
        vectors = dict(connection.execute("SELECT key, clip_image FROM curated").fetchall())
        texts = dict(connection.execute("SELECT key, clip_text FROM curated").fetchall())
        caption, same = connection.execute("SELECT caption, key FROM curated ORDER BY key LIMIT 1").fetchall()[0]
    key = min(vectors)
    found = client.ask("rows", {"like": {"column": "clip_image", "key": key}, "count": ROWS})["rows"]
    assert found[0]["key"] == key
    expected = sorted(vectors, key=lambda k: -sum(a * b for a, b in zip(vectors[k], vectors[key], strict=True)))
    worth = [row["likeness"] for row in found]
    known = [row["key"] for row in found if row["likeness"] is not None]
    assert sorted(known) == sorted(expected)
    assert [w for w in worth if w is not None] == sorted((w for w in worth if w is not None), reverse=True)
    assert worth[len(known) :] == [None] * (ROWS - len(known))
    by_text = client.ask("rows", {"like": {"column": "clip_text", "text": caption}, "count": 3})["rows"]
    best = max(float(sum(a * b for a, b in zip(texts[k], texts[same], strict=True))) for k in texts)
    assert by_text[0]["likeness"] == pytest.approx(best, abs=0.01)
    few = client.ask("rows", {"like": {"column": "clip_image", "key": key}, "selection": {"words": "cat"}, "count": 5})
    assert [row["key"] for row in few["rows"]] == [row["key"] for row in found if "cat" in row["caption"]][:5]


def test_vectors_are_found_whose_step_read_a_column_of_the_source(root: Path, client: Client) -> None:
    with connect(root / "store") as connection:
        rows = connection.execute("SELECT key, colour FROM curated WHERE colour IS NOT NULL ORDER BY key").fetchall()
    (key, colour), *_ = rows
    found = client.ask("rows", {"like": {"column": "own_clip_text", "key": key}, "count": 5})["rows"]
    assert [row["colour"] for row in found] == [colour] * 5
    assert found[0]["likeness"] == pytest.approx(1, abs=1e-3)


def test_another_model_in_the_place_of_the_vectors_is_noticed(root: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    weights = root / "model" / "open_clip_model.safetensors"
    before = weights.read_bytes()
    changed = load_file(weights)
    changed["text_projection"] = -changed["text_projection"]
    with running(root / "store") as page:
        save_file(changed, weights)
        said = Client(page).ask("rows", {"like": {"column": "clip_image", "text": "a dog"}})["error"]
        weights.write_bytes(before)
    assert "is not the one that made the vectors of steps[2] clip_embed" in said


def test_a_story_tells_what_explain_knows(client: Client) -> None:
    row = next(r for r in client.ask("rows", {"count": ROWS})["rows"] if r["caption"] == HOSTILE_CAPTION)
    told = client.ask(f"story/{row['key']}")
    assert told["values"]["caption"] == HOSTILE_CAPTION
    (scored,) = [step for step in told["told"]["steps"] if step["step"] == "steps[3] clip_score"]
    assert scored["values"]["clip_score"] is not None


def test_hashes_reach_the_page_digit_by_digit() -> None:
    """A browser's numbers have 53 bits."""
    assert exact({"phash": 2**64 - 1, "rows": [2**53, -(2**60)]}) == {
        "phash": "18446744073709551615",
        "rows": [2**53, "-1152921504606846976"],
    }


def test_keys_are_exported_as_text(root: Path, client: Client) -> None:
    wish = quote(json.dumps({"words": "cat"}))
    status, headers, body = client.send("GET", f"/keys.txt?selection={wish}")
    with connect(root / "store") as connection:
        expected = connection.execute(
            "SELECT key FROM samples WHERE contains(lower(caption), 'cat') ORDER BY key"
        ).fetchall()
    assert (status, body.decode().split()) == (200, [key for (key,) in expected])
    assert headers["content-disposition"] == 'attachment; filename="keys.txt"'
    assert client.send("GET", "/keys.exe")[0] == 404
    assert client.send("GET", "/keys.txt?selection=%7B%22x%22%3A1%7D")[0] == 400


def test_the_version_is_fixed_when_it_is_opened(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    first = add_version(store, usual_pairs())
    with running(store.root) as page:
        client = Client(page)
        add_version(store, [*usual_pairs(), pair(40), pair(41)], plan="plan1")
        assert client.ask("about")["label"] == f"demo@{first}"
        assert client.ask("about")["bars"] == client.ask("select", {})["bars"]
        assert client.ask("select", {})["rows"] == 12
        assert client.ask("select", {"sql": "url LIKE '%.jpg'"})["rows"] == 12
        assert len(client.ask("rows", {})["rows"]) == 12
        for samples in (store.root / "curated" / "demo" / first).glob("samples-*"):
            samples.unlink()
        for status, said in (
            client.send("POST", "/api/select", b'{"sql": "url LIKE \'%.png\'"}')[::2],
            client.send("GET", f"/api/story/{'0' * 32}")[::2],
        ):
            assert (status, b"start it again" in said) == (410, True)
    with running(store.root) as page:
        assert Client(page).ask("select", {})["rows"] == 14


def test_a_version_without_rows_and_one_without_pictures_can_be_looked_at(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    add_version(store, [])
    with running(store.root) as page:
        client = Client(page)
        assert client.ask("about")["facets"] == []
        assert client.ask("select", {})["rows"] == 0
        assert client.ask("select", {"sql": "clip_score > 0", "words": "x"})["rows"] == 0
        assert client.ask("rows", {}) == {"rows": []}
        assert (
            "is no signal here; there are none"
            in client.ask("threshold", {"signal": "clip_score", "kind": "keep"})["error"]
        )
        assert client.send("GET", "/keys.txt")[2] == b""
    add_version(store, usual_pairs(), plan="plan1", name="other")
    with running(store.root, "other") as page:
        client = Client(page)
        row = client.ask("rows", {})["rows"][0]
        assert client.send("GET", f"/thumbnail/{row['key']}")[0] == 204
        assert client.ask("about")["vectors"] == []
        assert "clip_embed" in client.ask("rows", {"like": {"column": "clip_image", "key": row["key"]}})["error"]


def test_a_port_that_is_taken_and_memory_that_is_short_are_said(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    add_version(store, usual_pairs())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"--port {port}: .*leave it out"), served(store.root, port=port):
            pass
    short = Limits(memory_gb=0.001)
    with pytest.raises(InputError, match=r"12 rows need more than 0\.001 GB"), served(store.root, limits=short):
        pass
    with pytest.raises(InputError, match="no finished version of it"), served(store.root, "nothing"):
        pass
    add_version(store, usual_pairs(), plan="plan1", name="other")
    with pytest.raises(InputError, match="has the data sets demo, other; say which: pairmill explore NAME"):
        served(store.root).__enter__()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_command_prints_an_address_and_stops_cleanly(root: Path, number: int, code: int) -> None:
    command = [sys.executable, "-m", "flows.command_line", "explore", "--store", str(root / "store"), "--no-browser"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{32}", address)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert said.endswith("Stopped.\n")
    assert "Traceback" not in said
