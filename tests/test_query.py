"""Questions in SQL over finished data sets: what they see, how answers look, and what hostile ones cannot do."""

import csv
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import run_job, textured_jpeg, write_table
from small_store import STEPS, add_downloads, add_version, key_of, new_store, pair, usual_pairs

from curation.analytics.limits import Limits
from curation.analytics.query import ask, asked, connect, run_sql
from curation.analytics.view_columns import VIEWS
from curation.storage.store import Store
from schemas.errors import InputError
from schemas.evaluations import put_scores

SECRET = "the secret text beside the store"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two versions of one set; only the older has row 3, only the newer has row 40."""
    folder = tmp_path_factory.mktemp("query")
    (folder / "secret.csv").write_text(f"text\n{SECRET}\n")
    (folder / "secret.json").write_text(json.dumps({"text": SECRET}))
    store = new_store(folder)
    add_downloads(store, usual_pairs())
    add_version(store, usual_pairs())
    newer = [row for row in usual_pairs() if row["key"] != key_of(3)] + [pair(40)]
    version = add_version(store, newer, plan="plan1", spec={"steps": STEPS[:3], "shards": {}})
    manifest = store.path(f"curated/demo/{version}.json")
    put_scores(manifest, version, "small", folder / "model", 5, {"zeroshot": {"top1": 0.5}})
    return store


def records(store: Store, text: str, **more) -> list[dict]:
    with asked(store.root, text, **more) as answer:
        return answer.records()


def written(store: Store, text: str, format: str, **more) -> bytes:
    out = io.BytesIO()
    run_sql(store.root, text, out, format=format, **more)
    return out.getvalue()


def test_samples_has_one_row_per_key_with_its_fate(store):
    found = records(
        store, "SELECT fate, count(*) AS n, count(DISTINCT key) AS keys FROM samples GROUP BY ALL ORDER BY 1"
    )
    assert found == [
        {"fate": "curated", "n": 8, "keys": 8},
        {"fate": "dropped", "n": 3, "keys": 3},
        {"fate": "failed", "n": 1, "keys": 1},
    ]


def test_the_funnel_is_a_group_by_over_samples(store):
    text = """SELECT step, rows_in - rows_out AS gone, (SELECT count(*) FROM samples WHERE fate_step = step) AS here
              FROM funnel WHERE number > 0 ORDER BY number"""
    found = records(store, text)
    assert len(found) == len(STEPS)
    assert all(row["gone"] == row["here"] for row in found)


def test_every_view_answers_and_says_what_it_is(store):
    with connect(store.root) as connection:
        for view, meaning in VIEWS.items():
            filled = view != "parts"  # this store came without a snapshot
            assert connection.execute(f"SELECT count(*) > 0 FROM {view}").fetchone() == (filled,)
            comment = """SELECT comment FROM (SELECT view_name AS name, comment FROM duckdb_views() WHERE NOT internal
                         UNION ALL SELECT table_name, comment FROM duckdb_tables()) WHERE name = ?"""
            assert connection.execute(comment, [view]).fetchone() == (meaning,)
        comment = "SELECT comment FROM duckdb_columns() WHERE table_name = 'samples' AND column_name = ?"
        assert connection.execute(comment, ["width_px"]).fetchone() == ("what width_px is",)
        assert "why" in connection.execute(comment, ["fate_reason"]).fetchone()[0]
        silent = "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal AND comment IS NULL"
        assert connection.execute(silent).fetchall() == []


def test_views_of_the_store_need_no_name_where_there_are_several_sets(tmp_path):
    store = new_store(tmp_path)
    assert records(store, "SELECT count(*) AS n FROM runs") == [{"n": 0}]
    for name in ("demo", "other"):
        add_version(store, usual_pairs(), name=name, plan=f"plan-{name}")
    found = records(store, "WITH mine AS (FROM runs) SELECT DISTINCT name FROM mine ORDER BY name")
    assert found == [{"name": "demo"}, {"name": "other"}]
    with pytest.raises(InputError, match="it has the data sets demo, other; say which with --name"):
        records(store, "SELECT * FROM runs, samples")


def test_downloads_come_from_the_ledgers_that_commits_list(store):
    found = records(store, "SELECT status, count(*) AS n FROM downloads GROUP BY 1 ORDER BY 1")
    assert found == [{"status": "http_404", "n": 2}, {"status": "ok", "n": 9}]


def test_fetches_are_found_whose_fingerprint_rides_on_the_source(web, tmp_path):
    """Where the URL is a column of the source's own, fingerprints differ from part to part: no manifest names them."""
    rows = []
    for number in range(6):
        mirror = web.put(f"/{number}.jpg", textured_jpeg(number)) if number else f"{web.base_url}/gone.jpg"
        rows.append({"url": f"http://nowhere/{number}", "caption": f"picture {number}", "mirror": mirror})
    source = {"table": write_table(tmp_path / "pairs.parquet", rows), "rows_per_part": 2}
    step = {"download": {"allow_networks": ["127.0.0.0/8"], "retries": 0}, "reads": {"url": "mirror"}}
    run_job({"name": "s", "store": str(tmp_path / "store"), "source": source, "steps": [step]})
    text = "SELECT status, count(*) AS n, min(http_status) AS http FROM downloads GROUP BY 1 ORDER BY n"
    found = records(Store(tmp_path / "store"), text)
    assert [(row["status"], row["n"], row["http"]) for row in found] == [("http_404", 1, 404), ("ok", 5, 200)]


def test_files_that_no_manifest_lists_are_not_read(store, tmp_path):
    version = records(store, "SELECT version FROM runs ORDER BY number DESC LIMIT 1")[0]["version"]
    folder = store.path(f"curated/demo/{version}")
    stray = folder / "samples-000001.parquet"
    stray.write_bytes((folder / "samples-000000.parquet").read_bytes())
    try:
        assert records(store, "SELECT count(*) AS n FROM samples") == [{"n": 12}]
    finally:
        stray.unlink()


def test_another_version_stands_in_a_schema_of_its_own(store):
    older = records(store, "SELECT version FROM runs ORDER BY number LIMIT 1")[0]["version"]
    text = "SELECT key FROM old.samples ANTI JOIN samples USING (key)"
    assert records(store, text, with_versions={"old": f"demo@{older}"}) == [{"key": key_of(3)}]
    assert records(store, "SELECT count(*) AS n FROM samples", name=f"demo@{older}") == [{"n": 12}]


@pytest.mark.parametrize("alias", ["main", "samples", "Old", "a b", "temp", ""])
def test_a_schema_name_that_is_taken_or_odd_is_refused(store, alias):
    with pytest.raises(InputError, match="no free name for a schema"):
        records(store, "SELECT 1", with_versions={alias: "demo"})


def test_csv_json_and_parquet_hold_the_same_rows(store):
    text = "SELECT key, width_px, clip_score, phash FROM samples ORDER BY key"
    plain = records(store, text)
    from_csv = list(csv.DictReader(io.StringIO(written(store, text, "csv").decode())))
    assert [row["key"] for row in from_csv] == [row["key"] for row in plain]
    assert [row["width_px"] for row in from_csv] == ["" if r["width_px"] is None else str(r["width_px"]) for r in plain]
    assert json.loads(written(store, text, "json")) == plain
    assert pq.read_table(io.BytesIO(written(store, text, "parquet"))).to_pylist() == plain


def test_values_that_json_does_not_know_are_spelled_out(store):
    text = """SELECT 'nan'::FLOAT AS nan, '\\xAB'::BLOB AS bytes, sum(width_px) AS huge, DATE '2024-02-03' AS day,
              [1.5::FLOAT] AS list, {'a': NULL} AS struct, 1.5::DECIMAL(5,2) AS decimal FROM samples"""
    assert json.loads(written(store, text, "json")) == [
        {"nan": None, "bytes": "ab", "huge": 2350, "day": "2024-02-03", "list": [1.5], "struct": {"a": None}}
        | {"decimal": 1.5}
    ]


def test_no_rows_are_an_empty_answer_in_every_format(store):
    text = "SELECT key FROM samples WHERE false"
    assert written(store, text, "csv") == b"key\n"
    assert json.loads(written(store, text, "json")) == []
    assert pq.read_table(io.BytesIO(written(store, text, "parquet"))).num_rows == 0
    assert b"0 rows" in written(store, text, "table")


def test_a_table_says_when_it_does_not_show_all(store):
    shown = written(store, "SELECT key FROM samples", "table", limits=Limits(shown_rows=5), width=100).decode()
    assert "5 rows; there are more" in shown
    assert shown.count("\n") < 12


def test_rows_wider_than_the_terminal_stand_upright(store):
    shown = written(store, "SELECT * FROM samples LIMIT 1", "table", width=60).decode()
    assert "\n  fate_reason   " in shown


def test_control_characters_of_captions_do_not_reach_the_terminal(store):
    shown = written(store, "SELECT chr(27) || '[2Jhidden' AS caption", "table", width=60)
    assert b"\x1b" not in shown
    assert b"hidden" in shown


def test_a_misspelt_column_gets_candidates(store):
    with pytest.raises(InputError, match=r"(?s)fat.*Candidate bindings.*\"fate\""):
        records(store, "SELECT fat FROM samples")


def test_a_misspelt_view_gets_a_suggestion(store):
    with pytest.raises(InputError, match=r"(?s)sampels.*Did you mean \"samples\""):
        records(store, "SELECT * FROM sampels")


def test_an_unknown_format_names_those_there_are(store):
    with pytest.raises(InputError, match="table, csv, json, parquet"):
        written(store, "SELECT 1", "xml")


def test_a_store_without_finished_versions_is_a_sentence(tmp_path):
    with pytest.raises(InputError, match="no finished data set; a run makes one"):
        records(new_store(tmp_path), "SELECT 1")
    with pytest.raises(InputError, match="there is no store here"):
        records(Store(tmp_path / "nowhere"), "SELECT 1")


def test_a_set_without_curated_rows_answers_too(tmp_path):
    store = new_store(tmp_path)
    add_version(store, [pair(1, 0), pair(4, 2)])
    assert records(store, "SELECT (SELECT count(*) FROM curated) AS c, count(*) AS n FROM samples") == [
        {"c": 0, "n": 2}
    ]


def test_with_several_sets_the_name_must_be_said(tmp_path):
    store = new_store(tmp_path)
    add_version(store, usual_pairs(), name="one")
    add_version(store, usual_pairs()[1:], name="two", plan="plan1")
    with pytest.raises(InputError, match="has the data sets one, two; say which with --name"):
        records(store, "SELECT 1")
    assert records(store, "SELECT count(*) AS n FROM samples", name="two") == [{"n": 11}]
    with pytest.raises(InputError, match="no finished version of it; it has the data sets one, two"):
        records(store, "SELECT 1", name="three")


WRITING = """
import sys
from pathlib import Path
from small_store import add_version, new_store, pair, usual_pairs

store = new_store(Path(sys.argv[1]))
for number in range(100, 115):
    add_version(store, [*usual_pairs(), *map(pair, range(100, number))], plan=f"plan{number}")
    print(number, flush=True)
"""


def test_every_answer_is_about_one_version_while_runs_finish(tmp_path):
    """Each question sees the version that was the newest when it was asked, whole; a connection stays with its own."""
    store = new_store(tmp_path)
    add_version(store, usual_pairs(), plan="plan99")
    text = """SELECT (SELECT count(*) FROM samples) AS rows, (SELECT rows_in FROM funnel WHERE number = 0) AS pool,
              (SELECT count(*) FROM curated) AS curated, (SELECT sum(rows) FROM shards) AS in_shards"""
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITING, str(tmp_path)], env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    seen = []
    with connect(store.root) as connection:
        writer.stdout.readline()
        while writer.poll() is None:
            (row,) = records(store, text)
            assert row["rows"] == row["pool"]
            assert row["curated"] == row["in_shards"] == row["rows"] - 5
            seen.append(row["rows"])
            assert connection.execute("SELECT count(*) FROM samples").fetchone() == (12,)
        writer.stdout.close()
    assert writer.returncode == 0
    assert seen == sorted(seen)
    assert len(set(seen)) > 1


def test_a_version_of_no_rows_answers(tmp_path):
    store = new_store(tmp_path)
    add_version(store, [])
    for view in VIEWS.keys() - {"funnel", "columns", "runs"}:
        assert records(store, f"SELECT count(*) AS n FROM {view}") == [{"n": 0}]
    assert records(store, "SELECT sum(rows_in) AS rows FROM funnel") == [{"rows": 0}]
    assert records(store, "SELECT avg(clip_score) AS mean, max(key) AS last FROM samples") == [
        {"mean": None, "last": None}
    ]


def test_a_signal_that_not_all_rows_have_is_null_there_and_counts_for_nothing(store):
    found = records(store, "SELECT count(*) AS n, count(width_px) AS known, min(width_px) AS least FROM samples")
    assert found == [{"n": 12, "known": 10, "least": 40}]
    unknown = "SELECT fate_step FROM samples WHERE NOT (width_px > 0) OR width_px IS NULL ORDER BY 1"
    assert records(store, unknown) == [{"fate_step": "steps[0] keep"}, {"fate_step": "steps[1] download"}]


HOSTILE = [
    "COPY samples TO '{out}'",
    "COPY (SELECT 1) TO '{out}' (FORMAT csv)",
    "COPY samples TO '{store}/curated/demo/new.parquet'",
    "COPY samples FROM '{secret}'",
    "ATTACH '{out}' AS other",
    "ATTACH ':memory:' AS other",
    "DETACH memory",
    "USE memory",
    "PRAGMA database_list",
    "PRAGMA version",
    "SET memory_limit = '100GB'",
    "SET enable_external_access = true",
    "RESET lock_configuration",
    "SET GLOBAL allowed_directories = ['/']",
    "INSTALL httpfs",
    "LOAD httpfs",
    "LOAD '{out}'",
    "EXPORT DATABASE '{out}'",
    "IMPORT DATABASE '{out}'",
    "CREATE TABLE t (x INTEGER)",
    "CREATE TABLE t AS SELECT * FROM samples",
    "CREATE OR REPLACE VIEW samples AS SELECT 1",
    "CREATE MACRO f(x) AS x",
    "CREATE SECRET s (TYPE s3)",
    "CREATE SEQUENCE s",
    "CREATE TYPE t AS INTEGER",
    "INSERT INTO runs VALUES (1, 'a', 'b', 'c', NULL)",
    "UPDATE runs SET name = 'x'",
    "DELETE FROM runs",
    "DROP VIEW samples",
    "DROP TABLE runs",
    "ALTER TABLE runs ADD COLUMN x INTEGER",
    "TRUNCATE runs",
    "BEGIN TRANSACTION",
    "CHECKPOINT",
    "VACUUM",
    "ANALYZE",
    "CALL pragma_version()",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "DEALLOCATE p",
    "EXPLAIN ANALYZE SELECT 1",
    "COMMENT ON TABLE runs IS 'x'",
    "SET VARIABLE x = 1",
    "MERGE INTO runs USING samples ON false WHEN NOT MATCHED THEN INSERT VALUES (1, 'a', 'b', 'c', NULL)",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP VIEW samples",
    "",
    "-- nothing",
    "SELECT * FROM read_text('{secret}')",
    "SELECT * FROM read_blob('{secret}')",
    "SELECT * FROM read_csv('{secret}')",
    "FROM read_csv_auto('{secret}')",
    "FROM read_json('{secret_json}')",
    "FROM read_ndjson_objects('{secret_json}')",
    "FROM sniff_csv('{secret}')",
    "FROM read_parquet('{samples}')",
    "FROM parquet_metadata('{samples}')",
    "FROM parquet_schema('{samples}')",
    "FROM glob('{store}/*')",
    "FROM glob('/etc/*')",
    "FROM '{secret}'",
    "FROM '{samples}'",
    'FROM "{secret}"',
    "FROM '/etc/passwd'",
    "DESCRIBE '{secret}'",
    "SUMMARIZE '{secret}'",
    "DESCRIBE FROM read_csv('{secret}')",
    "WITH t AS (FROM read_text('{secret}')) FROM t",
    "WITH t AS MATERIALIZED (FROM '{secret}') SELECT * FROM t",
    "SELECT (SELECT content FROM read_text('{secret}'))",
    "SELECT * FROM samples, LATERAL (FROM read_text('{secret}'))",
    "SELECT key FROM samples WHERE key IN (SELECT content FROM read_text('{secret}'))",
    "SELECT * FROM query('FROM read_text(''{secret}'')')",
    "SELECT * FROM query_table('{secret}')",
    "SELECT * FROM json_execute_serialized_sql('{{}}')",
    "SELECT json_serialize_plan('FROM read_text(''{secret}'')')",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM duckdb_logs()",
    "SELECT current_setting('allowed_paths')",
    "SELECT getenv('HOME')",
    "SELECT write_log('x')",
    "SELECT sleep_ms(100000)",
    "SELECT nextval('s')",
    "FROM secret",  # a variable of ours, found by Python's replacement scans
    "FROM 'https://example.invalid/x.parquet'",
    "FROM 's3://bucket/x.parquet'",
    "SELECT " + "(" * 20_000 + "1" + ")" * 20_000,
    "SELECT " + "+".join(["1"] * 20_000),
    "SELECT '" + "x" * 70_000 + "'",
    "SELECT '\ud800'",
]


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.rglob("*")) if p.is_file()}


def test_hostile_statements_read_nothing_outside_and_write_nothing(store, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    version = records(store, "SELECT version FROM runs ORDER BY number DESC LIMIT 1")[0]["version"]
    secret = store.root.parent / "secret.csv"
    names = {
        "out": tmp_path / "written",
        "store": store.root,
        "secret": secret,
        "secret_json": secret.with_suffix(".json"),
        "samples": store.path(f"curated/demo/{version}/samples-000000.parquet"),
    }
    before = tree(store.root.parent)
    answered, leaked = [], []
    with connect(store.root, limits=Limits(memory_gb=1)) as connection:
        for template in HOSTILE:
            text = template.format(**names) if "{" in template else template
            try:
                with ask(connection, text, Limits(time_s=10, memory_gb=1)) as answer:
                    leaked += [template[:80]] if SECRET in str(answer.records()) else []
                answered.append(template[:80])
            except InputError as error:
                leaked += [template[:80]] if SECRET in str(error) else []
        assert connection.execute("SELECT count(*) FROM samples, runs").fetchone() == (24,)
    assert len(HOSTILE) >= 40
    assert answered == []
    assert leaked == []
    assert tree(store.root.parent) == before
    assert list(tmp_path.iterdir()) == []


def test_duckdb_itself_refuses_files_where_the_gate_is_not_asked(store):
    """The wall behind the gate: the locked connection alone reads no other file and changes no setting."""
    import duckdb

    secret = store.root.parent / "secret.csv"
    with connect(store.root) as connection:
        for text in (f"FROM read_text('{secret}')", f"FROM '{secret}'", "SET enable_external_access = true"):
            with pytest.raises(duckdb.Error):
                connection.execute(text)
        with pytest.raises(duckdb.Error):
            connection.execute(f"COPY (SELECT 1) TO '{store.root / 'new.csv'}'")


ENDLESS = [
    "WITH RECURSIVE t AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM t) SELECT max(x) FROM t",
    "WITH RECURSIVE t AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM t) FROM t",
    "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range + b.range = 3",
]


@pytest.mark.parametrize("text", ENDLESS)
@pytest.mark.parametrize("format", ["json", "parquet"])
def test_an_endless_question_is_stopped(store, text, format):
    started = time.monotonic()
    with pytest.raises(InputError, match=r"stopped after 0\.3 s"):
        written(store, text, format, limits=Limits(time_s=0.3))
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    "text",
    [
        "SELECT list(i) FROM range(1000000000) t(i)",
        "SELECT repeat('a', 4000000000)",  # one value: DuckDB's own limit does not see it
        "SELECT [1] || range(1000000000)",
    ],
)
def test_a_question_that_takes_too_much_memory_is_stopped(store, text):
    with pytest.raises(InputError, match=r"more than 0\.2 GB of memory"):
        written(store, text, "csv", limits=Limits(time_s=20, memory_gb=0.2))


HARMLESS = [
    "FROM samples",
    "TABLE samples",
    "DESCRIBE samples",
    "SUMMARIZE samples",
    "SHOW TABLES",
    "VALUES (1), (2)",
    "WITH t AS (SELECT key FROM samples) SELECT count(*) FROM t",
    "SELECT * FROM range(3)",
    "SELECT unnest([1, 2, 3])",
    "SELECT quantile_cont(clip_score, [0.1, 0.5]) FROM samples",
    "SELECT width_px // 64 AS bucket, count(*) FROM samples GROUP BY ALL ORDER BY ALL",
    "SELECT key, row_number() OVER (ORDER BY key) FROM samples QUALIFY row_number() OVER (ORDER BY key) < 3",
    "FROM samples PIVOT (count(*) FOR fate IN ('curated', 'dropped'))",
    "SELECT s.key FROM samples s JOIN curated USING (key);",
]


@pytest.mark.parametrize("text", HARMLESS)
def test_what_people_ask_is_answered(store, text):
    assert len(records(store, text)) > 0
