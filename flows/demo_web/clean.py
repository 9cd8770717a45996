"""Clean pairs and labelled pictures that are never part of the web: for the scorer's training, and for evaluation."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flows.demo_web.captions import english, templates
from flows.demo_web.pictures import draw, encode, random_encoding
from flows.demo_web.scenes import COLOURS, HELD_OUT, SHAPES, TRUSTED, Scene, random_scene

CLASSES = {
    "colour": COLOURS,
    "shape": SHAPES,
    "class": tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES),
}


@dataclass(frozen=True)
class HeldOut:
    """A folder of labelled pictures, as a `folder` source reads it, and for each label a file of zero-shot prompts."""

    folder: Path
    prompts: dict[str, Path]  # by label (colour, shape, class): JSON with `classes` and `templates`


def write_trusted(folder: Path, *, pairs: int = 1000, seed: int = 0) -> Path:
    """Clean pairs, pictures with captions.jsonl beside them, as a `folder` source reads them."""
    return _write_folder(folder, [random_scene(seed, TRUSTED, number) for number in range(pairs)], (seed, TRUSTED))


def write_held_out(folder: Path, *, pictures: int = 600, seed: int = 0) -> HeldOut:
    """Clean pictures with their colour, shape and class (`red circle`), and the prompts to classify them by."""
    scenes = [random_scene(seed, HELD_OUT, number) for number in range(pictures)]
    _write_folder(folder / "pictures", scenes, (seed, HELD_OUT))
    prompts = {label: folder / f"{label}.json" for label in CLASSES}
    for label, file in prompts.items():
        file.write_text(json.dumps({"classes": CLASSES[label], "templates": templates(label)}, indent=1) + "\n")
    return HeldOut(folder / "pictures", prompts)


def _write_folder(folder: Path, scenes: list[Scene], seed: tuple[int, ...]) -> Path:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, scene in enumerate(scenes):
        encoding = random_encoding(rng)
        file = folder / f"{number:06d}.{encoding.extension}"
        file.write_bytes(encode(draw(scene), encoding))
        labels = {"colour": scene.colour, "shape": scene.shape, "class": f"{scene.colour} {scene.shape}"}
        lines.append(json.dumps({"file": file.name, "caption": english(scene, rng), **labels}))
    (folder / "captions.jsonl").write_text("\n".join([*lines, ""]))
    return folder
