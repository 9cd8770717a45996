"""A trained model as a folder that plain transformers loads: weights, configuration, processor, chat template."""

import shutil
import tempfile
from pathlib import Path

from training.generative.adapters import merged
from training.generative.build import Built


def save_model(built: Built, folder: Path) -> None:
    """Write model (adapters merged) and processor; a crash leaves the old model, the new one, or none, never a mixture.

    `AutoModelForImageTextToText.from_pretrained(folder)` and `AutoProcessor.from_pretrained(folder)` load them.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as beside:
        fresh, old = Path(beside, "new"), Path(beside, "old")
        merged(built.model).save_pretrained(fresh)
        built.processor.save_pretrained(fresh)
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
