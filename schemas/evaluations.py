"""Scores of trained models, noted beside the curated set that they were trained on, so that `sql` can tell.

`<set>/evaluations/<digest>.json` holds one evaluation of one model: what training, which of its steps, the version of
the set, and the scores. The name is the digest of all but the time, so the same scores are noted once.
"""

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_FOLDER = "evaluations"


def put_scores(
    manifest: Path, version: str, training: str, model: Path, step: int | None, scores: Mapping[str, Any]
) -> None:
    """Note scores by evaluation; `manifest` is the version's file. A set that cannot be written to goes without."""
    record = {"version": version, "training": training, "model": str(model), "step": step, "scores": dict(scores)}
    digest = hashlib.sha256(json.dumps(record, sort_keys=True, allow_nan=False).encode()).hexdigest()[:32]
    target = manifest.parent / _FOLDER / f"{digest}.json"
    if target.exists():
        return
    fresh = target.with_name(f".{target.name}.new")
    try:
        target.parent.mkdir(exist_ok=True)
        fresh.write_text(json.dumps(record | {"at": time.time()}, sort_keys=True), encoding="utf-8")
        fresh.replace(target)
    except OSError as error:
        logging.getLogger(__name__).warning("%s: scores are not noted beside it (%s)", manifest, error)


def read_scores(folder: Path) -> Iterator[dict[str, Any]]:
    """Every score noted beside a set, by its folder, in order of time: one row per metric, and per class or group."""
    records = [json.loads(path.read_bytes()) for path in (folder / _FOLDER).glob("[0-9a-f]*.json")]
    for record in sorted(records, key=lambda record: (record["at"], json.dumps(record, sort_keys=True))):
        same = {name: record[name] for name in ("version", "training", "model", "step", "at")}
        for evaluation, scores in record["scores"].items():
            for metric, value in scores.items():
                kind = metric.removeprefix("per_") if isinstance(value, Mapping) else None
                if kind is None:
                    yield same | {"evaluation": evaluation, "class": None, "metric": metric, "value": value}
                    continue
                for label, found in value.items():
                    for metric_of_class, number in found.items():
                        named = label if kind == "class" else f"{kind} {label}"
                        row = {"evaluation": evaluation, "class": named, "metric": metric_of_class, "value": number}
                        yield same | row
