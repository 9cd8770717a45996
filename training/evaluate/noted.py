"""Scores of a training are noted beside the sets that it was trained on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from schemas.errors import InputError
from schemas.evaluations import put_scores
from schemas.manifest import read_manifest
from training.run_folder import RECORD, RESULTS


def note_scores(run_folder: Path, model_folder: Path, scores: Mapping[str, Any], step: int | None = None) -> int:
    """Note scores by evaluation for `sql`; return beside how many sets. A model without its training's record: none.

    `step` is where in the training the model stands; by default at its end, if it has one.
    """
    record = run_folder / RECORD
    if not scores or not record.is_file():
        return 0
    known = json.loads(record.read_text(encoding="utf-8"))
    if step is None and (run_folder / RESULTS).is_file():
        step = json.loads((run_folder / RESULTS).read_text(encoding="utf-8")).get("steps")
    noted = 0
    for one in known["data"]:
        manifest = Path(one["manifest"])
        try:
            version = read_manifest(manifest).version
        except InputError:  # pruned, or on another machine: there is nothing to note it beside
            continue
        put_scores(manifest, version, known["spec"]["name"], model_folder.resolve(), step, scores)
        noted += 1
    return noted
