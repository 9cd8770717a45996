"""`catalog.duckdb` of a version: what DuckDB alone sees of a data set, from wherever it is started."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from conftest import SmallWeb, run_job, textured_jpeg, write_table

from curation.analytics.catalogue import FILE
from curation.analytics.query import connect
from curation.analytics.view_columns import OF_STORE, VIEWS
from curation.prune import prune
from curation.verify import verify

ALONE = """
import json, sys, duckdb
with duckdb.connect("catalog.duckdb", read_only=True) as connection:
    print(json.dumps([connection.execute(text).fetchall() for text in sys.argv[1:]]))
"""


def spec_of(web: SmallWeb, folder: Path, at_least: int = 90) -> dict:
    """Six pictures of two hosts' names, one of them gone, two too small, in three parts."""
    rows = []
    for number in range(6):
        there = web.put(f"/{number}.jpg", textured_jpeg(number, 80 + 10 * (number > 1)))
        rows.append({"url": there if number != 5 else f"{web.base_url}/gone.jpg", "caption": f"picture {number}"})
    steps = [{"download": {"allow_networks": ["127.0.0.0/8"], "retries": 0}}, "inspect_image"]
    steps.append({"keep": f"width_px >= {at_least}", "id": "wide"})
    source = {"table": write_table(folder / "pairs.parquet", rows), "rows_per_part": 2}
    return {"name": "small", "store": str(folder / "store"), "source": source, "steps": steps}


@pytest.fixture
def version(web: SmallWeb, tmp_path: Path) -> Path:
    """The folder of one finished version."""
    result = run_job(spec_of(web, tmp_path))
    return result.manifest.parent / result.version


def test_duckdb_alone_sees_in_the_folder_what_sql_sees(version, tmp_path):
    asked = [f"SELECT COLUMNS(*)::VARCHAR FROM {view} ORDER BY ALL" for view in VIEWS if view not in OF_STORE]
    done = subprocess.run([sys.executable, "-c", ALONE, *asked], cwd=version, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with connect(tmp_path / "store") as connection:
        assert json.loads(done.stdout) == [[list(r) for r in connection.execute(text).fetchall()] for text in asked]


def test_from_another_folder_the_search_path_finds_its_files(version, tmp_path):
    moved = tmp_path / "moved" / version.name  # without the store around it
    shutil.copytree(version, moved)
    with duckdb.connect(str(moved / FILE), read_only=True) as connection:
        with pytest.raises(duckdb.IOException, match="No files found"):
            connection.execute("FROM samples")
        connection.execute("SET file_search_path = $folder", {"folder": str(moved)})
        fates = connection.execute("SELECT fate, count(*) FROM samples GROUP BY ALL ORDER BY ALL").fetchall()
    assert fates == [("curated", 3), ("dropped", 2), ("failed", 1)]


def test_views_and_columns_are_explained_in_the_file(version):
    with duckdb.connect(str(version / FILE), read_only=True) as connection:
        tables = """SELECT view_name AS name, comment FROM duckdb_views() WHERE NOT internal
                    UNION ALL SELECT table_name, comment FROM duckdb_tables()"""
        expected = {view: meaning for view, meaning in VIEWS.items() if view not in OF_STORE}
        assert dict(connection.execute(tables).fetchall()) == expected
        silent = "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal AND comment IS NULL"
        assert connection.execute(silent).fetchall() == []


def test_it_names_no_file_by_its_whole_path(version, tmp_path):
    data = (version / FILE).read_bytes()
    assert os.fsencode(tmp_path) not in data
    assert b"samples-000000.parquet" in data


def test_parts_are_those_of_the_snapshot_and_downloads_tell_outcomes_by_host_and_class(version, tmp_path):
    with connect(tmp_path / "store") as connection:
        parts = connection.execute("SELECT number, rows, members FROM parts ORDER BY number").fetchall()
        by_class = "SELECT host, status, count(*) FROM downloads GROUP BY ALL ORDER BY ALL"
        assert parts == [(0, 2, 2), (1, 2, 2), (2, 2, 2)]
        assert connection.execute(by_class).fetchall() == [("127.0.0.1", "http_404", 1), ("127.0.0.1", "ok", 5)]


def test_it_is_written_once_and_is_no_part_of_the_version_s_name(web, tmp_path):
    first = run_job(spec_of(web, tmp_path))
    path = first.manifest.parent / first.version / FILE
    before = path.read_bytes(), path.stat().st_mtime_ns
    assert run_job(spec_of(web, tmp_path)).version == first.version
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    again = run_job(spec_of(web, tmp_path) | {"store": str(tmp_path / "other")})
    assert again.version == first.version
    assert again.manifest.read_bytes() == first.manifest.read_bytes()


def test_verify_finds_a_catalogue_that_does_not_answer_as_the_manifest_says(version):
    manifest = version.with_suffix(".json")
    assert verify(manifest).ok
    with duckdb.connect(str(version / FILE)) as connection:
        connection.execute("UPDATE funnel SET rows_out = 7 WHERE number = 1")
        connection.execute("CREATE OR REPLACE VIEW curated AS SELECT 1")
    errors = verify(manifest).errors
    assert len(errors) == 2
    assert "does not count the rows" in errors[0]
    assert "does not tell the funnel" in errors[1]
    (version / FILE).write_bytes(b"no database")
    (error,) = verify(manifest).errors
    assert "cannot be asked" in error
    (version / FILE).unlink()  # as versions of older programs are
    assert verify(manifest).ok


def test_prune_removes_the_catalogue_with_its_version(web, tmp_path):
    old = run_job(spec_of(web, tmp_path))
    new = run_job(spec_of(web, tmp_path, at_least=1))
    outcome = prune(tmp_path / "store", remove=True)
    assert f"curated/small/{old.version}/{FILE}" in outcome.files
    assert not (old.manifest.parent / old.version).exists()
    assert (new.manifest.parent / new.version / FILE).exists()
    assert verify(new.manifest).ok
