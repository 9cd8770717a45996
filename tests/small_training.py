"""What tests of training share: generated pairs as a curated set, and a small model's specification."""

import hashlib
import io
import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from schemas.shard import ShardWriter
from schemas.training import TrainingSpec
from training.batches import Batch
from training.checkpoint import State
from training.learner import Contrastive
from training.model import Model, build_model
from training.optimizer import optimizer_for

MODEL = str(Path(__file__).with_name("tiny_conv.json"))
VIT = str(Path(__file__).with_name("tiny_vit.json"))
COLOURS = {"red": (220, 30, 30), "green": (30, 180, 60), "blue": (40, 60, 220), "yellow": (230, 210, 40)}
PLACES = {"top left": (4, 4), "top right": (34, 4), "bottom left": (4, 34), "bottom right": (34, 34)}
KINDS = list(itertools.product(COLOURS, ("square", "disc"), PLACES, ("grey", "black")))


def picture(colour: str, shape: str, place: str, ground: str, draw: random.Random) -> Image.Image:
    image = Image.new("RGB", (64, 64), ground)
    left, top = (at + draw.randint(-2, 2) for at in PLACES[place])
    pen = ImageDraw.Draw(image)
    (pen.ellipse if shape == "disc" else pen.rectangle)((left, top, left + 24, top + 24), fill=COLOURS[colour])
    return image


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def pairs(count: int, *, shuffled: bool = False) -> list[tuple[str, dict[str, bytes]]]:
    draw = random.Random(1)
    kinds = [KINDS[i % len(KINDS)] for i in range(count)]
    captions = [f"a {colour} {shape} at the {place} on {ground}" for colour, shape, place, ground in kinds]
    if shuffled:
        draw.shuffle(captions)
    made = []
    for number, (kind, caption) in enumerate(zip(kinds, captions, strict=True)):
        columns = {"caption": caption, "short": kind[0], "none": None}
        members = {"png": png(picture(*kind, draw)), "txt": caption.encode(), "json": json.dumps(columns).encode()}
        made.append((f"{number:032x}", members))
    return made


def write_set(
    folder: Path, rows: list[tuple[str, dict[str, bytes]]], per_shard: int = 100, holdout: int = 0, version: str = "v1"
) -> Path:
    """A curated set as a run publishes it, with tars alone; the last `holdout` shards are held out."""
    shards = []
    chunks = [rows[i : i + per_shard] for i in range(0, len(rows), per_shard)]
    (folder / version).mkdir(parents=True)
    for number, chunk in enumerate(chunks):
        path = folder / version / f"shard-{number:06d}.tar"
        with open(path, "wb") as stream, ShardWriter(stream) as writer:
            for key, members in chunk:
                writer.add(key, members)
        name = f"{version}/{path.name}"
        shards.append(
            {
                "tar": name, "tar_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "tar_bytes": path.stat().st_size, "parquet": name.replace(".tar", ".parquet"),
                "parquet_sha256": "0" * 64, "parquet_bytes": 0, "rows": len(chunk),
                "holdout": number >= len(chunks) - holdout,
            }
        )  # fmt: skip
    columns = [{"name": name, "type": "string", "meaning": ""} for name in ("caption", "short", "none")]
    manifest = {
        "name": folder.name, "version": version, "rows": len(rows), "pool": len(rows), "columns": columns,
        "shards": shards, "samples": [], "funnel": [], "spec": {}, "operators": {},
    }  # fmt: skip
    for file in (f"{version}.json", "manifest.json"):
        (folder / file).write_text(json.dumps(manifest))
    return folder


def spec_of(curated: Path, output: Path, **changes: Any) -> TrainingSpec:
    fields: dict[str, Any] = {
        "name": "small", "task": "contrastive", "data": [{"set": str(curated)}], "model": MODEL, "batch_size": 32,
        "samples": 32 * 6, "lr": 2e-3, "warmup_steps": 3, "weight_decay": 0.1, "device": "cpu", "output": str(output),
        "threads": 1,  # threads that wait for each other make a busy machine crawl
    }  # fmt: skip
    return TrainingSpec.model_validate({**fields, **changes})


def losses_in(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights_in(folder: Path) -> bytes:
    return (folder / "model" / "open_clip_model.safetensors").read_bytes()


def learner_of(spec: TrainingSpec) -> tuple[Contrastive, State, Model]:
    """An untrained model with what trains it."""
    torch.set_num_threads(1)
    torch.manual_seed(spec.seed)
    model = build_model(spec, "cpu")
    learner = Contrastive(model, spec)
    return learner, State(model.network, optimizer_for(model.network, spec)), model


def batch_of(model: Model, count: int, seed: int = 0) -> Batch:
    """Noise with captions."""
    pixels_BCHW = np.random.default_rng(seed).integers(0, 256, (count, 3, 32, 32), np.uint8)
    tokens_BT = model.tokenize([f"caption {n} of {seed}" for n in range(count)]).numpy()
    return Batch(pixels_BCHW, tokens_BT, (count,), 0)
