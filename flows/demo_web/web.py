"""The demo's web: its pictures as files, the table of pairs, how paths misbehave, and the truth about every pair."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from flows.demo_web.planting import Planted, plan_web
from flows.demo_web.server import Behaviour

_TOLD_EVERY = 50  # files


@dataclass(frozen=True)
class Web:
    """A generated web on disk: give `behaviours` to the server of `files`."""

    folder: Path
    pairs: Path  # Parquet: url, caption, source_id, site; what a spec names as its source
    truth: Path  # Parquet, one row per pair: url, caption, kind, kinds, rows, picture, original, the scene's factors
    behaviours: dict[str, Behaviour]
    counts: dict[str, int]  # rows of the table by kind

    @property
    def files(self) -> Path:
        """The folder to be served."""
        return self.folder / "files"


def make_web(
    folder: Path,
    base_url: str,
    *,
    pairs: int = 3000,
    seed: int = 0,
    tell: Callable[[int], None] = lambda done: None,
) -> Web:
    """Write a web of so many rows for a server at `base_url`; `tell` hears how many rows are done.

    The same seed gives the same bytes. Keys depend on URLs: fix the server's port where they have to be the same.
    """
    planted = plan_web(pairs, seed)
    for number, row in enumerate(planted):
        file = folder / "files" / row.path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        if row.owns_file:
            file.write_bytes(row.content())
        if number % _TOLD_EVERY == _TOLD_EVERY - 1 or number == len(planted) - 1:
            tell(number + 1)
    web = Web(
        folder,
        folder / "pairs.parquet",
        folder / "truth.parquet",
        {row.path: row.behaviour for row in planted if row.behaviour is not None},
        dict(Counter(row.kind for row in planted)),
    )
    pq.write_table(_pairs(planted, base_url), web.pairs)
    pq.write_table(_truth(planted, base_url), web.truth)
    return web


def _pairs(planted: list[Planted], base_url: str) -> pa.Table:
    """The table as a crawler would give it, with columns of its own."""
    return pa.table(
        {
            "url": [base_url + row.path for row in planted],
            "caption": pa.array([row.caption for row in planted], pa.string()),
            "source_id": pa.array(range(len(planted)), pa.int64()),
            "site": [row.path.split("/")[1] for row in planted],
        }
    )


def _truth(planted: list[Planted], base_url: str) -> pa.Table:
    """One row per pair: rows with equal URL and caption are one, whose `rows` is 2 and whose kinds are joined."""
    pairs: dict[tuple[str, str | None], list[Planted]] = {}
    for row in planted:
        pairs.setdefault((row.path, row.caption), []).append(row)
    firsts = [min(rows, key=lambda row: row.kind == "duplicate_row") for rows in pairs.values()]
    original = [base_url + row.original if row.original else None for row in firsts]
    scene = {
        name: [getattr(row.scene, name) for row in firsts]
        for name in ("shape", "colour", "size", "position", "background")
    }
    return pa.table(
        {
            "url": [base_url + row.path for row in firsts],
            "caption": pa.array([row.caption for row in firsts], pa.string()),
            "kind": [row.kind for row in firsts],
            "kinds": pa.array([sorted({row.kind for row in rows}) for rows in pairs.values()], pa.list_(pa.string())),
            "rows": pa.array([len(rows) for rows in pairs.values()], pa.int32()),
            "picture": pa.array([row.picture for row in firsts], pa.int32()),
            "original": pa.array(original, pa.string()),
            **scene,
        }
    )
