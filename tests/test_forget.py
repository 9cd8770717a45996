"""What is forgotten stays out of every later selection, whatever its address or caption; nothing else changes."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from conftest import Silent, textured_jpeg, write_table
from forget_store import ALIKE, CAPTIONED_AGAIN, TWIN, ForgetStore, counting_web, make_store

from curation.analytics.diff import diff
from curation.analytics.explain import explain
from curation.analytics.what_if import what_if
from curation.fetch.block_lists import BlockLists
from curation.forget.asked import Asked
from curation.forget.forget import forget
from curation.forget.tombstones import Tombstones, hash_of, read_requests
from curation.job import Job
from curation.verify import verify
from flows.command_line import cli
from schemas.errors import InputError, StoreError
from schemas.pins import put_pin
from schemas.pipeline import CurationSpec

MOVES = {("", "forget"), ("steps[3] dedup", "")}  # where a forgotten row goes, and the one that it stood for


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForgetStore]:
    with counting_web() as web:
        yield make_store(tmp_path_factory.mktemp("forget"), web)


@pytest.fixture
def here(made: ForgetStore, tmp_path: Path) -> ForgetStore:
    """The store, to change."""
    return made.copied(tmp_path / "copy" / "store")


def keys(here: ForgetStore, tmp_path: Path, *numbers: int) -> Asked:
    return Asked("keys", here.file(tmp_path, *map(here.key, numbers)))


def files(here: ForgetStore) -> set[str]:
    return {str(path) for path in here.root.rglob("*") if path.is_file() and path.name != "lock"}


def test_a_dry_run_lists_what_is_affected_and_writes_nothing(made, tmp_path):
    before = files(made)
    found = forget(made.root, keys(made, tmp_path, 0), dry_run=True)
    assert files(made) == before
    assert (found.rows, found.request) == (1, None)
    by_name = {version.name: version for version in found.versions}
    assert {name: (v.rows, v.curated) for name, v in by_name.items()} == {"plain": (1, 1), "set": (1, 1)}
    assert by_name["set"].returning == (made.key(ALIKE),)
    assert sum(shard.rows for shard in by_name["set"].shards) == 1
    assert "Nothing was written" in found.text()
    assert json.loads(json.dumps(found.record()))["dry_run"]


def test_who_trained_on_a_version_is_listed(here, tmp_path):
    manifest = here.manifest("set")
    put_pin(here.root / "curated/set" / f"{manifest.version}.json", manifest.version, "the training run clip")
    (version,) = (v for v in forget(here.root, keys(here, tmp_path, 0), dry_run=True).versions if v.name == "set")
    assert version.used_by == ("the training run clip",)


def test_all_four_selectors_find_the_row_with_its_other_captions_and_addresses(made, tmp_path):
    family = {made.key(n) for n in (1, TWIN, CAPTIONED_AGAIN)}
    one = {
        "keys": made.file(tmp_path, made.key(1)),
        "urls": str(tmp_path / "urls"),
        "where": "caption = 'a very secret caption 1'",
    }
    (tmp_path / "urls").write_text(made.rows[1]["url"] + "\nhttp://never.example/met.jpg\n")
    for selector, value in one.items():
        found = forget(made.root, Asked(selector, value, "plain" if selector == "where" else None), dry_run=True)
        assert found.rows == len(family), selector
        assert found.unknown == (selector == "urls")
    (tmp_path / "typed").write_text(f"  {made.key(1).upper()}\r\n", encoding="utf-8-sig")
    assert forget(made.root, Asked("keys", str(tmp_path / "typed")), dry_run=True).rows == len(family)
    (tmp_path / "hosts").write_text("none.example\n")
    assert forget(made.root, Asked("hosts", str(tmp_path / "hosts")), dry_run=True).rows == 0
    (tmp_path / "hosts").write_text("127.0.0.1  # all of it\n")
    assert forget(made.root, Asked("hosts", str(tmp_path / "hosts")), dry_run=True).rows == len(made.rows)


def test_what_is_forgotten_is_dropped_and_its_near_duplicate_comes_back(here, tmp_path):
    assert here.fates("set")[ALIKE] == "dropped steps[3] dedup"
    before = here.manifest("set")
    forget(here.root, keys(here, tmp_path, 0), why="asked by its maker", who="ada")
    supposed = what_if(Job.open(CurationSpec.model_validate(here.spec("set")), Silent()))
    assert {supposed.counts[name] for name in ("in", "out")} == {1}
    assert {(move.step_a, move.step_b) for move in supposed.moves} == MOVES
    result = here.run("set")
    duplicates = dict.fromkeys((TWIN, CAPTIONED_AGAIN), "dropped steps[3] dedup")
    curated = dict.fromkeys((1, 2, 3, 4, 5, ALIKE), "curated")
    assert here.fates("set") == {0: "dropped forget"} | curated | duplicates
    assert verify(result.manifest).errors == []
    assert result.version != before.version
    assert result.funnel[0]["reason"] == "1 forgotten on request"
    (told,) = explain(here.root, here.key(0), "set")
    assert [step.outcome for step in told.steps] == ["dropped", *["not reached"] * 4]
    assert [place.fate for place in told.places] == ["dropped", "curated"]
    assert "of ada" in told.text()
    assert "asked by its maker" in told.text()
    moved = diff(here.root, f"set@{before.version}", "set").moves
    assert {(move.step_a, move.step_b) for move in moved} == MOVES


def test_other_captions_and_addresses_of_a_forgotten_picture_are_dropped_too(here, tmp_path):
    forget(here.root, keys(here, tmp_path, TWIN))
    here.run("plain")
    gone = {n for n, fate in here.fates("plain").items() if fate == "dropped forget"}
    assert gone == {1, TWIN, CAPTIONED_AGAIN}
    row = here.samples("plain")[here.key(1)]
    assert {name for name, value in row.items() if value is not None} == {"key", "fate", "fate_step", "fate_reason"}


def test_what_arrives_later_under_another_caption_or_address_stays_out_and_is_not_kept(here, tmp_path):
    forget(here.root, keys(here, tmp_path, 1))
    picture = textured_jpeg(1)
    later = here.web.put("/later.jpg", picture)
    rows = [{"url": here.rows[1]["url"], "caption": "third caption", "note": ""}]
    rows += [
        {"url": later, "caption": "elsewhere", "note": ""},
        {"url": here.rows[2]["url"], "caption": "new", "note": ""},
    ]
    before = here.web.asked.copy()
    tars = set(here.root.glob("blobs/*/*.tar"))
    result = here.run("plain", write_table(tmp_path / "more.parquet", rows))
    assert here.web.asked - before == {"/later.jpg": 1}
    samples = {row["fate_step"]: row["fate"] for row in here.samples("plain").values()}
    assert (result.curated, samples) == (1, {"forget": "dropped", "": "curated"})
    assert verify(result.manifest).errors == []
    assert all(picture not in path.read_bytes() for path in set(here.root.glob("blobs/*/*.tar")) - tars)


def test_an_error_page_that_many_urls_give_is_no_picture(here, tmp_path):
    rows = [
        {"url": here.web.put(f"/gone{i}", b"<html>gone</html>"), "caption": f"gone {i}", "note": ""} for i in range(3)
    ]
    here.run("plain", write_table(tmp_path / "gone.parquet", rows))
    assert {row["fate_step"] for row in here.samples("plain").values()} == {"steps[0] download"}
    assert forget(here.root, Asked("where", "caption = 'gone 1'", "plain"), dry_run=True).rows == 1


def test_a_forgotten_url_is_never_asked_for(here, tmp_path):
    url = here.web.put("/future.jpg", textured_jpeg(99))
    forget(here.root, Asked("urls", here.file(tmp_path, url)))
    here.run("plain", write_table(tmp_path / "future.parquet", [{"url": url, "caption": "x", "note": ""}]))
    assert here.web.asked["/future.jpg"] == 0
    assert [row["fate_step"] for row in here.samples("plain").values()] == ["forget"]


def test_a_forget_that_hits_nothing_of_a_set_changes_no_version_of_it(here, tmp_path):
    versions = {name: here.manifest(name).version for name in ("plain", "set")}
    before = here.web.asked.copy()
    forget(here.root, Asked("urls", here.file(tmp_path, "http://elsewhere.example/x.jpg")))
    assert {name: here.run(name).version for name in versions} == versions
    assert here.web.asked == before


def test_the_same_request_twice_is_one_and_a_selection_does_not_depend_on_how_it_was_asked(here, made, tmp_path):
    forget(here.root, keys(here, tmp_path, 1))
    again = forget(here.root, keys(here, tmp_path, 1), who="somebody else")
    assert (len(read_requests(here.store)), again.request) == (1, None)
    other = made.copied(tmp_path / "other" / "store")
    forget(other.root, Asked("urls", other.file(tmp_path, "http://elsewhere.example/x.jpg")))
    forget(other.root, Asked("urls", other.file(tmp_path, other.rows[1]["url"])), why="another reason")
    assert here.run("plain").version == other.run("plain").version


def test_hosts_match_as_block_lists_do():
    """Vectorised and one by one: the host itself and those below it, whatever else stands in the URL."""
    lists = BlockLists(frozenset({"a.example", "127.0.0.1", "xn--mnchen-3ya.example"}))
    urls = ["http://a.example/x", "https://img.a.example:8080/y?q=http://b.example", "http://me:pw@A.Example", None]
    urls += ["http://nota.example/", "http://a.example.org/a.example/", "http://example/", "HTTP://a.example.#x"]
    urls += ["http://127.0.0.1:80/", "http://1.127.0.0.1.example", "https://münchen.example/ü", "no url", "", "http://"]
    urls += [" http://a.example/x "]  # fetched without the blanks
    hosts = [(urlsplit(url).hostname or "") if url else "" for url in urls]
    hosts = [host if host.isascii() else host.encode("idna").decode() for host in hosts]
    table = pa.table({"kind": ["host"] * 3, "hash": [hash_of(host) for host in sorted(lists.domains)]})
    none = pa.nulls(len(urls), pa.string())
    found = Tombstones([table]).rows(pa.table({"key": none, "address": none, "url": pa.array(urls)}))
    assert found.tolist() == [bool(lists.host(host)) for host in hosts]
    assert found.sum() == 7


def test_a_hash_of_another_length_or_none_matches_nothing():
    known = Tombstones([pa.table({"kind": ["key"] * 2, "hash": [hash_of("a"), hash_of("b")]})])
    given = pa.chunked_array([[hash_of("a"), None, ""], [hash_of("b")[:31], hash_of("b") + "more", hash_of("c")]])
    assert known.matches("key", given).tolist() == [True, False, False, False, True, False]
    assert known.matches("key", given.slice(1, 0)).tolist() == []
    assert not known.matches("url", given).any()


def test_a_tombstone_tells_no_text(here, tmp_path):
    (tmp_path / "hosts").write_text("127.0.0.1\n")
    request = forget(here.root, Asked("hosts", str(tmp_path / "hosts"))).request
    table = pq.read_table(here.root / request.file.name)
    assert set(table["kind"].to_pylist()) == {"key", "url", "host", "picture"}
    assert all(len(text) == 32 and int(text, 16) >= 0 for text in table["hash"].to_pylist())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "say what: --keys FILE"),
        ({"keys": "a", "where": "true"}, "--keys and --where are given together"),
        ({"keys": "{missing}"}, "cannot be read: No such file"),
        ({"urls": "{empty}"}, "holds nothing"),
        ({"keys": "{words}"}, "a key is 32 hex digits"),
        ({"keys": "{unknown}"}, "has no such keys: 00000000000000000000000000000000, "),
        ({"hosts": "{urls}"}, "is no domain"),
        ({"hosts": "{comments}"}, "holds nothing"),
        ({"where": "captoin = 'x'"}, 'Referenced column "captoin" not found'),
        ({"where": "length(caption)"}, "is no predicate"),
        ({"where": "key IN (SELECT key FROM samples)"}, "holds a subquery"),
        ({"where": "caption = 'nobody'"}, "is true for no row"),
    ],
)
def test_what_is_asked_wrongly_is_said_and_nothing_is_written(made, tmp_path, given, said):
    texts = {"empty": "\n", "words": "hello\n", "urls": "http://a.example/x\n", "comments": "# none\n"}
    texts["unknown"] = "\n".join(f"{n:032x}" for n in range(7))
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    options = [
        part
        for name, value in given.items()
        for part in (f"--{name}", value.format(missing="nowhere", **paths(tmp_path, texts)))
    ]
    options += ["--name", "plain"] if "where" in given and len(given) == 1 else []
    before = files(made)
    answer = CliRunner().invoke(cli, ["forget", "--store", str(made.root), *options])
    assert answer.exit_code == 2, answer.output
    assert said in answer.output
    if "unknown" in str(given):
        assert "and 2 more" in answer.output
    assert files(made) == before


def paths(tmp_path: Path, texts: dict[str, str]) -> dict[str, str]:
    return {name: str(tmp_path / name) for name in texts}


def test_nothing_is_forgotten_while_a_run_holds_the_store(here, tmp_path):
    with here.store.lock(), pytest.raises(StoreError, match="a run is using it"):
        forget(here.root, keys(here, tmp_path, 1))
    assert read_requests(here.store) == []


def test_the_command_tells_what_was_recorded(here, tmp_path):
    asked = here.file(tmp_path, here.key(2))
    answer = CliRunner().invoke(cli, ["forget", "--store", str(here.root), "--keys", asked, "--who", "ada", "--json"])
    assert answer.exit_code == 0, answer.output
    told = json.loads(answer.output)
    assert (told["rows"], told["request"]["who"]) == (1, "ada")
    assert {version["name"] for version in told["versions"]} == {"plain", "set"}


def test_a_set_that_is_asked_for_without_where_is_refused():
    with pytest.raises(InputError, match="without --where"):
        Asked.of({"keys": "a"}, "plain")
