"""A trained model as a folder that plain transformers loads: weights, configuration, processor, chat template."""

import tempfile
from pathlib import Path

from training.generative.adapters import merged
from training.generative.build import Built


def save_model(built: Built, folder: Path) -> None:
    """Write model (adapters merged) and processor; a crash leaves the old files or none.

    `AutoModelForImageTextToText.from_pretrained(folder)` and `AutoProcessor.from_pretrained(folder)` load them.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as fresh:
        merged(built.model).save_pretrained(fresh)
        built.processor.save_pretrained(fresh)
        folder.mkdir(exist_ok=True)
        for path in sorted(Path(fresh).iterdir(), key=lambda path: path.name == "config.json"):
            path.replace(folder / path.name)  # the configuration last: without it the folder holds no model
