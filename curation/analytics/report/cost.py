"""What a version cost: time of each stage by the records of runs, tokens of models, and bytes of what was written."""

from collections.abc import Iterator
from typing import Any

from curation.analytics.explain import SOURCE
from curation.analytics.report.contents import Column, Section, Table
from curation.analytics.report.questions import Questions
from curation.sql_expression import quoted
from curation.storage import layout
from curation.storage.store import Store, digest
from curation.versions import read_runs
from schemas.manifest import Manifest

_BARRIERS_NOT = ("keep",)  # the only step that decides within a stage
_READ, _WRITTEN = "_prompt_tokens", "_completion_tokens"  # last words of columns
_ABOUT_TOKENS = (
    "Tokens of models stand behind the answers that rows have: equal questions about one picture are paid once, and "
    "questions without an answer are not counted."
)


def cost(asked: Questions) -> Section:
    """Time per stage, as far as runs recorded it, tokens per step that asks a model, and bytes per kind of file."""
    store, manifest = asked.store, asked.manifest
    stages = list(_stages(manifest))
    spent = _spent(store, {fingerprint for _, fingerprint in stages})
    rows = []
    for steps, fingerprint in stages:
        if fingerprint in spent:
            found = spent[fingerprint]
            rate = found["rows"] / found["seconds"] if found["seconds"] else None
            rows.append({"stage": steps, **found, "rate": rate})
    columns = (
        Column("stage", "Stage"),
        Column("rows", "Rows", "count"),
        Column("seconds", "Time", "seconds"),
        Column("rate", "Rows per second", "number"),
        Column("runs", "Runs", "count"),
    )
    text = (
        "Time that workers took for each stage, in all runs of this store that computed something in it. What is "
        "computed once serves every later version, which may have cost nothing."
        if rows
        else "No run of this store recorded how long a stage of this version took."
    )
    files = Table(
        "bytes",
        "What was written",
        (Column("files", "Files"), Column("count", "How many", "count"), Column("bytes", "Size", "bytes")),
        _files(manifest),
    )
    stage_table = (Table("stages", "Time per stage", columns, rows),) if rows else ()
    tokens = _tokens(asked)
    about = (text, _ABOUT_TOKENS) if tokens else (text,)
    return Section("cost", "What it cost", about, (*stage_table, *tokens, files))


def _tokens(asked: Questions) -> tuple[Table, ...]:
    rows = []
    for column in asked.manifest.columns:
        written = column.name.removesuffix(_READ) + _WRITTEN
        if column.step != SOURCE and column.name.endswith(_READ) and {column.name, written} <= asked.types.keys():
            (found,) = asked.ask("tokens", read=quoted(column.name), written=quoted(written))
            rows.append({"step": column.step, **found})
    columns = (
        Column("step", "Step"),
        Column("rows", "Rows", "count"),
        Column("read", "Tokens of prompts and pictures", "count"),
        Column("written", "Tokens of answers", "count"),
    )
    return (Table("tokens", "Tokens", columns, rows),) if rows else ()


def _files(manifest: Manifest) -> list[dict[str, Any]]:
    tars = [shard.tar_bytes for shard in manifest.shards if shard.tar_bytes is not None]
    tables = [shard.parquet_bytes for shard in manifest.shards]
    samples = [sample.parquet_bytes for sample in manifest.samples]
    kinds = (("tars of the shards", tars), ("Parquet of the shards", tables), ("samples", samples))
    return [{"files": name, "count": len(sizes), "bytes": sum(sizes)} for name, sizes in kinds]


def _stages(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Steps and fingerprint of each stage, as `Stage` has it: its operators, cut where a step needs all rows."""
    labels: list[str] = []
    operators: list[str] = []
    for entry in (*manifest.funnel[1:], None):
        if entry is not None:
            labels.append(entry.step)
        if entry is not None and entry.step in manifest.operators:
            operators.append(manifest.operators[entry.step])
        elif entry is None or entry.kind not in _BARRIERS_NOT:
            if operators:
                yield ", ".join(labels), digest(operators)[:16]
            labels, operators = [], []


def _spent(store: Store, wanted: set[str]) -> dict[str, dict[str, Any]]:
    """Rows, seconds and number of runs that worked on a stage, by its fingerprint."""
    spent: dict[str, dict[str, Any]] = {}
    for run in read_runs(store):
        paces = (store.get(layout.finished(run.number)) or {}).get("paces", {})
        for fingerprint in sorted(wanted & paces.keys()):
            before = spent.setdefault(fingerprint, {"rows": 0, "seconds": 0.0, "runs": 0})
            before["rows"] += paces[fingerprint]["rows"]
            before["seconds"] = round(before["seconds"] + paces[fingerprint]["seconds"], 3)
            before["runs"] += 1
    return spent
