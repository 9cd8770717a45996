"""What the page must know of a version to draw itself: its columns, steps, bars and vectors."""

from collections.abc import Sequence
from typing import Any

from curation.analytics.explorer.facets import BARS, Category, Signal
from curation.analytics.explorer.likeness import Vectors
from curation.analytics.explorer.table import Table
from schemas.columns import CAPTION, KEY


def described(table: Table, vectors: Sequence[Vectors]) -> dict[str, Any]:
    """The version as JSON values."""
    manifest = table.chosen.manifest
    meanings = {column.name: column.meaning for column in manifest.columns}
    steps_of = {column.name: column.step for column in manifest.columns}
    return {
        "label": table.chosen.label,
        "name": manifest.name,
        "rows": table.rows,
        "curated": manifest.rows,
        "has_pictures": any(shard.tar for shard in manifest.shards),
        "columns": list(table.types),
        "steps": [entry.model_dump() for entry in manifest.funnel],
        "facets": [
            {"name": name, "meaning": meanings.get(name, ""), "step": steps_of.get(name, "")} | _facet(facet)
            for name, facet in table.facets.items()
        ],
        "left_out": [name for name in table.loaded if name not in {*table.facets, KEY.name, CAPTION.name}],
        "vectors": [
            {"column": v.column, "meaning": v.meaning, "step": v.step, "takes_text": v.takes_text} for v in vectors
        ],
        "thresholds": _thresholds(table),
    }


def _facet(facet: Signal | Category) -> dict[str, Any]:
    if isinstance(facet, Category):
        labels = list(facet.labels[: facet.shown])
        return {"kind": "category", "labels": labels, "others": len(facet.labels) - len(labels)}
    return {
        "kind": "signal",
        "start": facet.start,
        "width": facet.width,
        "bars": BARS,
        "low": facet.low,
        "high": facet.high,
        "whole": facet.is_whole,
    }


def _thresholds(table: Table) -> list[dict[str, Any]]:
    """The version's own `top` steps by a signal: what the page's threshold begins with."""
    found = []
    for entry, step in zip(table.chosen.manifest.funnel[1:], table.chosen.manifest.spec.get("steps", []), strict=False):
        top = step.get("parameters")
        if entry.kind != "top" or not isinstance(top, dict):
            continue
        is_grouped = bool(top.get("per"))
        group = table.facets.get(top["per"]) if is_grouped else None
        if isinstance(table.facets.get(top.get("by", "")), Signal) and is_grouped == isinstance(group, Category):
            said = {"fraction": top.get("fraction"), "per": top.get("per"), "order": top.get("order", "desc")}
            found.append({"step": entry.step, "signal": top["by"]} | said)
    return found
