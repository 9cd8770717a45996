"""`catalog.duckdb` in a version's folder: its views for DuckDB's own command line, notebooks and other programs.

    cd data/demo/curated/demo/<version> && duckdb -readonly catalog.duckdb "FROM funnel"

Views name files relative to that folder. From another one, `SET file_search_path = '<the folder>'` comes first. Written
once, before the version's manifest. It holds what belongs to the version: samples, curated, funnel, shards, parts,
columns, and downloads as its first run noted them; `runs` and `evaluations` go on growing, and `pairmill sql` has them.

Its bytes differ from one writing to the next, because DuckDB gives every file an identifier of its own. So it has no
part in a version's name or manifest; `verify` compares what it answers.
"""

from collections.abc import Sequence
from pathlib import Path

import duckdb

from curation.analytics.views import Views
from curation.storage.store import Store
from curation.versions import Chosen
from schemas.errors import StoreError
from schemas.manifest import Manifest

FILE = "catalog.duckdb"
_BLOCK_BYTES = "16384"  # the least: a version of few rows is a small file


def write_catalogue(store: Store, chosen: Chosen, ledgers: Sequence[str]) -> None:
    """Write a version's catalogue if it has none; its files have their names already. `ledgers` are its fetches'."""
    folder = chosen.folder / chosen.manifest.version
    if (folder / FILE).exists():
        return
    with store.temporary_folder() as temporary:
        path = temporary / FILE
        try:
            with duckdb.connect(str(path), config={"default_block_size": _BLOCK_BYTES}) as connection:
                connection.execute("SET file_search_path = $folder", {"folder": str(folder)})
                views = Views(connection, store, folder)
                views.add_version(chosen)
                views.add_downloads(ledgers)
                views.explain()
                connection.execute("CHECKPOINT")  # closing does it too, but is silent where the disk is full
        except (duckdb.FatalException, duckdb.IOException) as error:
            said = str(error).splitlines()[0]
            raise StoreError(f"{folder / FILE}: cannot be written: {said}; what is committed stays") from error
        store.link(path, str((folder / FILE).relative_to(store.root)))


def catalogue_errors(folder: Path, manifest: Manifest) -> list[str]:
    """What a version's catalogue answers otherwise than its manifest says; nothing where there is no catalogue."""
    name = f"{manifest.version}/{FILE}"
    if not (folder / name).exists():
        return []  # of a program that wrote none
    counts = "SELECT (SELECT count(*) FROM samples), (SELECT count(*) FROM curated)"
    try:
        with duckdb.connect(str(folder / name), read_only=True) as connection:
            connection.execute("SET file_search_path = $folder", {"folder": str(folder / manifest.version)})
            answered = connection.execute(counts).fetchone()
            funnel = connection.execute("SELECT step, kind, rows_in, rows_out, reason FROM funnel ORDER BY number")
            steps = funnel.fetchall()
    except duckdb.Error as error:
        return [f"{name}: cannot be asked ({str(error).splitlines()[0]}); remove it, and run the specification again"]
    wrong = []
    if answered != (sum(file.rows for file in manifest.samples), manifest.rows):
        wrong.append(f"{name}: does not count the rows as the manifest does")
    if steps != [(e.step, e.kind, e.rows_in, e.rows_out, e.reason) for e in manifest.funnel]:
        wrong.append(f"{name}: does not tell the funnel as the manifest does")
    return wrong
