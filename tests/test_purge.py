"""A purge leaves nothing of what is forgotten in a store, and everything else as it was; killed anywhere, it ends."""

import hashlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Silent, run_job, textured_jpeg, write_table
from forget_store import CAPTIONED_AGAIN, TWIN, ForgetStore, counting_web, make_store
from small_sets import small_spec

from curation.analytics.explain import explain
from curation.forget.asked import Asked
from curation.forget.forget import Forgotten, forget
from curation.forget.tombstones import hash_of, read_requests
from curation.job import Job
from curation.models.chat.answer_book import AnswerBook
from curation.models.chat.question import Answer
from curation.prune import prune
from curation.storage import sidecars
from curation.storage.pool import Part, extend_pool, read_pool
from curation.storage.sidecars import Sidecar
from curation.storage.store import Store
from curation.storage.tables import put_table
from curation.verify import verify
from curation.versions import versions
from schemas.errors import RunError, StoreError
from schemas.manifest import Manifest, read_manifest
from schemas.pipeline import CurationSpec
from schemas.shard import PoolTarWriter, read_shard
from training.curated_set import Cache, open_sets

POINTS = 7
FAMILY = (1, TWIN, CAPTIONED_AGAIN)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForgetStore]:
    with counting_web() as web:
        yield make_store(tmp_path_factory.mktemp("purge"), web)


@pytest.fixture
def here(made: ForgetStore, tmp_path: Path) -> ForgetStore:
    """The store, to change."""
    return made.copied(tmp_path / "copy" / "store")


def asked(here: ForgetStore, tmp_path: Path, *numbers: int) -> Asked:
    return Asked("keys", here.file(tmp_path, *map(here.key, numbers)))


def texts_in(store: Path) -> set[Any]:
    """Every value of every Parquet file and catalogue, and every member of every tar and JSON text, as one set."""
    found: set[Any] = set()
    for path in store.rglob("*"):
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            found.update(
                value for column in table.columns for value in column.to_pylist() if isinstance(value, str | bytes)
            )
        elif path.suffix == ".tar":
            for member in members_in(path):
                found.add(member)
        elif path.is_file():
            found.add(path.read_bytes())
    return found


def members_in(path: Path) -> Iterator[bytes]:
    import tarfile

    with tarfile.open(path) as tar:
        for member in tar:
            yield tar.extractfile(member).read()


def pictures_of(here: ForgetStore, number: int) -> set[bytes]:
    """The stored pictures of a row in the shards of both sets."""
    return {
        sample.picture
        for path in here.root.glob("curated/*/*/*.tar")
        for sample in read_shard(path)
        if sample.key == here.key(number)
    }


def requires_nothing_left(here: ForgetStore, pictures: set[bytes]) -> None:
    found = texts_in(here.root)
    secrets = [here.rows[n][name] for n in FAMILY for name in ("url", "caption", "note")]
    for value in found:
        assert value not in secrets
        assert value not in pictures
        if isinstance(value, bytes):
            assert not any(secret.encode() in value for secret in secrets)
    kept = [here.rows[n]["caption"] for n in range(len(here.rows)) if n not in FAMILY]
    assert set(kept) <= found


@dataclass
class Purged:
    """A store out of which row 1 is purged, and what it was before."""

    here: ForgetStore
    before: dict[str, Manifest]
    pictures: set[bytes]
    outcome: Forgotten


@pytest.fixture(scope="module")
def purged(made: ForgetStore, tmp_path_factory: pytest.TempPathFactory) -> Purged:
    folder = tmp_path_factory.mktemp("purged")
    here = made.copied(folder / "store")
    AnswerBook(here.store).put("ab" * 32, Answer("what a model said of it"))
    (here.root / "tmp/half").write_bytes(textured_jpeg(1))
    before = {name: here.manifest(name) for name in ("plain", "set")}
    pictures = pictures_of(here, 1)
    assert pictures <= texts_in(here.root)
    return Purged(here, before, pictures, forget(here.root, asked(here, folder, 1), purge=True))


def test_nothing_of_what_is_forgotten_is_left_anywhere(purged):
    requires_nothing_left(purged.here, purged.pictures | {textured_jpeg(1)})
    assert not (purged.here.root / "answers").exists()
    assert purged.outcome.purged["left"] == []
    assert "none forgotten" in purged.outcome.text()
    assert set(purged.outcome.purged["versions"]) == {f"{n}@{m.version}" for n, m in purged.before.items()}


@pytest.mark.parametrize(("name", "missing"), [("plain", 3), ("set", 1)])
def test_a_redacted_version_keeps_its_name_says_what_is_missing_and_is_sound(purged, name, missing):
    here, before = purged.here, purged.before[name]
    now = here.manifest(name)
    assert verify(here.root / "curated" / name).errors == []
    assert (now.version, now.pool) == (before.version, before.pool)
    assert (before.rows - now.rows, sum(shard.redacted for shard in now.shards)) == (missing, missing)
    assert [e.step for e in now.funnel] == [e.step for e in before.funnel]
    assert now.funnel[0].reason == "3 forgotten on request"
    manifest = here.root / "curated" / name / f"{now.version}.json"
    (record,) = [json.loads(path.read_text()) for path in here.root.glob("purges/*.json")]
    superseded = record["versions"][f"{name}@{now.version}"]
    assert superseded["is"] == hashlib.sha256(manifest.read_bytes()).hexdigest() != superseded["was"]


def test_what_is_not_touched_keeps_its_bytes(here, tmp_path):
    old = here.manifest("plain")
    forget(here.root, asked(here, tmp_path, 2), purge=True)
    now = here.manifest("plain")
    same = [a == b for a, b in zip(old.shards, now.shards, strict=True)]
    assert same.count(False) == 1
    assert [s.rows for s in now.shards] == [s.rows - (not kept) for s, kept in zip(old.shards, same, strict=True)]


def test_the_loader_reads_a_redacted_set_and_duckdb_its_catalogue(purged):
    folder = purged.here.root / "curated/plain"
    (data,) = open_sets(small_spec([folder]).data)
    assert data.rows == 6
    rows = data.from_row(0, 8, [0], Cache(0, 1, list))
    assert {next(rows)[0].key for _ in range(6)} == {purged.here.key(n) for n in range(9) if n not in FAMILY}
    version = folder / purged.here.manifest("plain").version
    with duckdb.connect(str(version / "catalog.duckdb"), read_only=True) as connection:
        connection.execute(f"SET file_search_path = '{version}'")
        counted = (
            "SELECT (SELECT count(*) FROM curated), (SELECT count(*) FROM samples), (FROM downloads SELECT count(url))"
        )
        assert connection.execute(counted).fetchone() == (6, 9, 6)


def test_the_proof_finds_what_a_purge_cannot_know_of(purged, tmp_path):
    here = purged.here.copied(tmp_path / "store")
    with here.store.new_file(".tar") as file, open(file.path, "wb") as stream, PoolTarWriter(stream) as tar:
        tar.add("f" * 32 + ".jpg", textured_jpeg(1))
    with here.store.new_file(".parquet") as table:
        pq.write_table(pa.table({"seen_at": [here.rows[1]["url"]]}), table.path)
    old, young = (put_table(here.store, pa.table({"signal": [number]})) for number in range(2))
    os.utime(here.store.path(old.name), (0, 0))
    forget(here.root, None, purge=True)
    assert not here.store.path(file.ref.name).exists()
    assert not here.store.path(table.ref.name).exists()
    assert [here.store.path(ref.name).exists() for ref in (old, young)] == [False, True]
    version = here.root / "curated/plain" / here.manifest("plain").version
    pq.write_table(pa.table({"key": [here.key(1)], "note": ["found again"]}), version / "added.parquet")
    with pytest.raises(RunError, match=r"added.parquet: 1 rows are forgotten"):
        forget(here.root, None, purge=True)


def test_what_failed_at_the_source_and_what_a_run_left_unfinished_is_purged_too(here, tmp_path):
    rows = [
        {"url": "http://h.example/\nrejected", "caption": "rejected caption", "note": "rejected note"},
        here.rows[1],
    ]
    rows.append({"url": None, "caption": "without url", "note": "note without url"})
    table = write_table(tmp_path / "odd.parquet", [*rows, here.rows[2]])
    here.run("plain", table)
    half = Job.open(CurationSpec.model_validate(here.spec("plain") | {"name": "half"}), Silent())
    half.start(lambda: pytest.fail("nothing is left to compute"))
    assert half.advance()
    half.materialiser.write(None, lambda done, total: None)
    ranked = here.spec("plain") | {"name": "ranked"}
    ranked["steps"].append({"top": {"by": "note_caption_chars", "fraction": 0.5, "per": "note"}})
    ranking = Job.open(CurationSpec.model_validate(ranked), Silent())
    ranking.start(lambda: pytest.fail("nothing is left to compute"))
    assert ranking.advance()
    assert any("note is 'hidden note 1'" in text for text in texts_in(here.root) if isinstance(text, str))
    secrets = {text for row in rows for text in row.values() if text}
    assert secrets <= texts_in(here.root)
    forget(here.root, Asked("where", "caption != 'a very secret caption 2'", "plain"))
    version = here.run("plain", table).version
    outcome = forget(here.root, None, purge=True)
    assert not secrets & texts_in(here.root)
    assert textured_jpeg(1) not in texts_in(here.root)
    assert not any("hidden note 1" in text for text in texts_in(here.root) if isinstance(text, str))
    assert len(outcome.purged["versions"]) == 3
    assert here.run("plain", table).version == version
    fates = sorted(f"{row['fate']} {row['fate_step']}" for row in here.samples("plain").values())
    assert fates == ["curated ", "dropped forget", "dropped forget", "failed source"]


def list_of(here: ForgetStore, pattern: str) -> list[Path]:
    return sorted(here.root.glob(pattern))


def test_a_file_that_two_parts_share_is_redacted_for_one_of_them_only(tmp_path):
    store = Store.open(tmp_path / "store")
    values = put_table(store, pa.table({"_computed": [True, True], "_status": ["ok", "ok"], "width_px": [640, 480]}))
    for part in ("00000-000000", "00001-000000"):
        keys = [hash_of(f"{part} {row}") for row in range(2)]
        columns = {
            "key": keys,
            "url": ["u", "v"],
            "caption": ["a", "b"],
            "address": [hash_of("u" + part), hash_of("v" + part)],
        }
        extend_pool(store, read_pool(store), [Part(part, 2, put_table(store, pa.table(columns)))], [])
        sidecars.commit(store, Sidecar(part, "inspect_image", "ab" * 32, 0, values))
    (tmp_path / "keys").write_text(hash_of("00000-000000 0"))
    forget(store.root, Asked("keys", str(tmp_path / "keys")), purge=True)
    found = [
        sidecars.read_values(store, sidecars.latest(store, part, "inspect_image", "ab" * 32)).to_pydict()
        for part in ("00000-000000", "00001-000000")
    ]
    assert found[0] == {"_computed": [True, True], "_status": [None, "ok"], "width_px": [None, 480]}
    assert found[1] == {"_computed": [True, True], "_status": ["ok", "ok"], "width_px": [640, 480]}


def test_a_purge_of_a_host_leaves_not_even_its_name(here, tmp_path):
    (tmp_path / "hosts").write_text("127.0.0.1\n")
    assert any("127.0.0.1" in text for text in texts_in(here.root) if isinstance(text, str))
    outcome = forget(here.root, Asked("hosts", str(tmp_path / "hosts")), purge=True)
    assert (outcome.rows, here.manifest("plain").rows, here.run("plain").curated) == (9, 0, 0)
    for text in texts_in(here.root):
        assert ("127.0.0.1" if isinstance(text, str) else b"127.0.0.1") not in text
    assert [verify(here.root / "curated" / name).errors for name in ("plain", "set")] == [[], []]


def test_a_catalogue_that_finds_no_room_is_not_there_and_the_purge_goes_on_when_it_does(here, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    request = asked(here, tmp_path, 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(StoreError, match=r"catalog\.duckdb: cannot be written"):
            forget(here.root, request, purge=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert verify(here.root / "curated/plain").errors == []
    assert "none forgotten" in forget(here.root, None, purge=True).text()


def test_a_second_purge_finds_nothing_to_do(purged):
    here = purged.here
    before = {path: path.read_bytes() for path in here.root.rglob("*") if path.is_file()}
    outcome = forget(here.root, None, purge=True)
    assert (outcome.purged["files"], outcome.request) == (0, None)
    assert {path: path.read_bytes() for path in here.root.rglob("*") if path.is_file()} == before
    assert len(read_requests(here.store)) == 1


def test_runs_after_a_purge_make_what_they_would_have_made_without_it(here, made, tmp_path):
    only_forgotten = made.copied(tmp_path / "only" / "store")
    forget(only_forgotten.root, asked(only_forgotten, tmp_path, 1))
    forget(here.root, asked(here, tmp_path, 1), purge=True)
    before = here.web.asked.copy()
    signals = list_of(here, "commits/*/*/*.json")  # one of them rides on a column of the source
    for name in ("plain", "set"):
        result = here.run(name)
        assert result.version == only_forgotten.run(name).version
        assert verify(result.manifest).errors == []
        assert here.run(name).version == result.version
    assert here.web.asked == before
    assert list_of(here, "commits/*/*/*.json") == signals
    assert here.fates("plain") == {n: "dropped forget" if n in FAMILY else "curated" for n in range(9)}
    (told,) = explain(here.root, here.key(1), "plain")
    assert {place.fate_step for place in told.places} == {"forget"}
    prune(here.root, remove=True, signals=True, grace_s=-1)
    assert verify(here.root / "curated/plain").errors == []


def test_forgetting_first_and_purging_later_is_the_same(here, made, tmp_path):
    at_once = made.copied(tmp_path / "once" / "store")
    forget(at_once.root, asked(at_once, tmp_path, 1), purge=True)
    forget(here.root, asked(here, tmp_path, 1))
    here.run("plain")
    forget(here.root, None, purge=True)
    requires_nothing_left(here, {textured_jpeg(1)})
    old = [version.version for version in versions(here.store, "plain")][1]
    one, two = (read_manifest(s.root / f"curated/plain/{old}.json") for s in (here, at_once))
    assert one == two
    assert here.manifest("plain").version == at_once.run("plain").version


def test_what_comes_after_the_request_brings_no_text_of_forgotten_rows_and_is_purged_too(here, tmp_path):
    forget(here.root, asked(here, tmp_path, 1))
    url = here.web.put("/much_later.jpg", textured_jpeg(1))
    rows = [{"url": url, "caption": "came later", "note": "later note"}, here.rows[2]]
    rows.append(here.rows[1] | {"note": "another note of it"})
    rows.append(here.rows[1] | {"caption": "another caption of it"})
    rows.append(here.rows[3] | {"caption": here.rows[1]["url"]})  # the text of another row, which stays
    here.run("plain", write_table(tmp_path / "later.parquet", rows))
    assert not {"another note of it", "another caption of it"} & texts_in(here.root)
    version = here.manifest("plain").version
    forget(here.root, None, purge=True)
    assert not {url, "came later", "later note"} & texts_in(here.root)
    assert here.rows[1]["url"] in texts_in(here.root)
    assert here.run("plain", str(tmp_path / "later.parquet")).version == version


def test_pictures_that_came_with_a_source_are_purged_and_stay_out_when_they_come_again(made, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(4):
        (photos / f"{number}.jpg").write_bytes(textured_jpeg(number))
        (photos / f"{number}.txt").write_text(f"photo {number}")
    spec = {
        "name": "photos",
        "store": str(tmp_path / "s"),
        "source": {"folder": str(photos)},
        "steps": ["inspect_image"],
    }
    run_job(spec)
    here = ForgetStore(tmp_path / "s", made.web, [], "")
    stored = {sample.picture for p in here.root.glob("curated/*/*/*.tar") for sample in read_shard(p)}
    forget(here.root, Asked("where", "caption = 'photo 1'"), purge=True)
    found = texts_in(here.root)
    assert len(stored & found) == 3
    assert "photo 1" not in found
    assert {"photo 0", "photo 2", "photo 3"} <= found
    assert forget(here.root, None, purge=True).request is None
    assert run_job(spec).curated == 3
    (photos / "4.jpg").write_bytes(textured_jpeg(1))
    (photos / "4.txt").write_text("the same photo again")
    result = run_job(spec)
    assert "the same photo again" not in texts_in(here.root)
    gone = [row for row in here.samples("photos").values() if row["fate_step"] == "forget"]
    assert (result.curated, len(gone)) == (3, 2)
    assert verify(result.manifest).errors == []
    assert len(stored & texts_in(here.root)) == 3


def test_pictures_of_a_source_that_are_forgotten_by_url_or_host_bring_no_text_either(tmp_path):
    store, photos = Store.open(tmp_path / "s"), tmp_path / "photos"
    photos.mkdir()
    urls = ["http://a.example/0.jpg", "http://a.example/1.jpg", "http://img.b.example/2.jpg", "http://c.example/0.jpg"]
    for number in range(4):
        (photos / f"{number}.jpg").write_bytes(textured_jpeg(number))
    lines = [f"{number}.jpg,photo {number},{url},by {number}" for number, url in enumerate(urls)]
    (photos / "captions.csv").write_text("\n".join(["file,caption,url,maker", *lines]))
    for selector, line in (("urls", urls[1]), ("hosts", "b.example")):
        (tmp_path / selector).write_text(line)
        forget(store.root, Asked(selector, str(tmp_path / selector)))
    source = {"folder": str(photos)}
    spec = {"name": "photos", "store": str(tmp_path / "s"), "source": source, "steps": ["inspect_image"]}
    result = run_job(spec)
    found = texts_in(store.root)
    texts = {f"{text} {n}" for text in ("photo", "by") for n in range(4)}
    assert found & texts == {"photo 0", "photo 3", "by 0", "by 3"}
    assert len({value for value in found if isinstance(value, bytes) and value.startswith(b"\xff\xd8")}) == 2
    assert (result.curated, result.funnel[0]["reason"]) == (2, "2 forgotten on request")
    forget(store.root, None, purge=True)
    assert not {urls[1], urls[2]} & texts_in(store.root)
    assert run_job(spec).version == result.version


def test_killed_anywhere_and_run_again_it_ends_the_same_and_versions_read_well_meanwhile(made, tmp_path):
    """Killed at durable steps all along: shards are what their manifest says, and no run takes a half-purged store."""
    whole = made.copied(tmp_path / "whole" / "store")
    forget(whole.root, asked(whole, tmp_path, 1), who="ada")
    source = whole.copied(tmp_path / "source" / "store")
    (steps,) = killed({source.copied(tmp_path / "0" / "store").root: 0})
    forget(whole.root, None, purge=True)
    points = [round(1 + i * (steps - 1) / (POINTS - 1)) for i in range(POINTS)]
    stores = {point: source.copied(tmp_path / str(point) / "store") for point in points}
    killed({here.root: point for point, here in stores.items()})
    unfinished = 0
    for point, here in stores.items():
        for name in ("plain", "set"):
            folder = here.root / "curated" / name
            for shard in here.manifest(name).shards:
                assert hashlib.sha256((folder / shard.tar).read_bytes()).hexdigest() == shard.tar_sha256, point
        if (here.root / "purges/planned.json").exists():
            unfinished += 1
            with pytest.raises(StoreError, match="a purge was cut short"):
                here.run("plain")
            with pytest.raises(StoreError, match="a purge was cut short"):
                prune(here.root, remove=True, grace_s=-1)
        forget(here.root, None, purge=True)
        assert digests(here.root) == digests(whole.root), point
    assert unfinished > POINTS // 3
    requires_nothing_left(here, {textured_jpeg(1)})
    assert verify(here.root / "curated/set").errors == []


def killed(stores: dict[Path, int]) -> list[int]:
    """Purge stores, each killed at its n-th durable step (0: never); how many steps those took that were not."""
    here = Path(__file__).parent
    command = [sys.executable, str(here / "killed_purges.py"), *(f"{store}={point}" for store, point in stores.items())]
    done = subprocess.run(command, capture_output=True, text=True, cwd=here.parent, timeout=300, check=True)
    return [int(line) for line in done.stdout.split()]


def digests(store: Path) -> dict[str, str]:
    """SHA-256 of every file but catalogues and records of when something was asked."""
    files = [path for path in store.rglob("*") if path.is_file() and path.suffix != ".duckdb"]
    kept = [path for path in files if path.parent.name not in ("purges", "tmp", "forgotten") and path.name != "lock"]
    return {str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}
