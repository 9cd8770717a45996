"""Proof of learning: a vision-language model put together from our own parts says colours, shapes and places.

    python benchmarks/proof_of_captioning.py [--seeds 0 1 2 3 4] [--threads 2]

A small ViT learns by contrast, and becomes the encoder of a LLaVA with a tiny Qwen2, which reads by a tokenizer made
from the captions. Three stages: the language model on captions alone, without pictures; the connector; all of it. Five
of the thirty pairs of colour and shape are never trained on, and asked for all the same. Shapes are large and their
backgrounds cloudy: of smaller ones on busier grounds a ViT of this size learns little in this time.

Goals: colour 0.95, shape 0.70, a caption word by word 0.50; of a blank picture colour at most 0.30; the parts that a
stage freezes unchanged, bit by bit; under 4 minutes for each seed on 2 cores. Printed last are the gates for tests: 0.9
× the minimum over the seeds. Seed 0 on one thread: 1.00, 0.945, 0.945 and 0.165, in 174 CPU seconds on a busy machine.

What did not work. Of pairs never trained on captions name the colour (1.00) and almost never the shape (0.07; 0.00 with
captions of these pairs among the texts): so small a language model learns from 25 of 30 pairs that there are no others.
With two fifths of the contrastive samples and 280 steps of all, seeds 0 and 1 named 0.55 and 0.30 of the shapes; with
two thirds and twice as many steps of half the batch, 0.33 and 0.50. The connector alone learns nothing of a language
model that has only read: its loss stays where the texts' ends.
"""

import argparse
import hashlib
import io
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from flows.demo_captioner import share_naming, write_tokenizer
from flows.demo_web.captions import english
from flows.demo_web.pictures import draw
from flows.demo_web.scenes import COLOURS, HELD_OUT, SHAPES, TRUSTED, Scene, random_scene
from schemas.generative import GenerativeSpec
from schemas.manifest import ColumnEntry, Manifest, ShardEntry
from schemas.shard import ShardWriter
from schemas.training import TrainingSpec

TOWER = Path(__file__).parent.parent / "pipelines" / "training" / "models" / "small_vit.json"
NEVER_SEEN = frozenset(zip(COLOURS, SHAPES, strict=False))  # five pairs; each colour and shape is seen with others
SIDE_PX, PICTURES, ASKED = 32, 6000, 200
QUESTION = "What does it show?"
LEAST = {"colour": 0.95, "shape": 0.70, "exact": 0.50}
LLM = {
    "model_type": "qwen2", "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip
STEPS = {"contrast": 150, "text": 60, "connector": 60, "all": 350}


def main() -> None:
    """Train and measure seed by seed; print the gates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    names = ("colour", "shape", "exact", "unseen colour", "unseen shape", "blank colour", "seconds", "CPU seconds")
    print(f"{'seed':>6}" + "".join(f"{name:>15}" for name in names))
    found = []
    for seed in asked.seeds:
        with tempfile.TemporaryDirectory() as folder:
            row = experiment(Path(folder), seed, asked.threads)
        print(f"{seed:>6}" + "".join(f"{row[name]:>15.3f}" for name in names), flush=True)
        found.append(row)
    gates = {name: 0.9 * min(row[name] for row in found) for name in names[:5]}
    print(" gates" + "".join(f"{gate:>15.3f}" for gate in gates.values()))
    low = [name for name, least in LEAST.items() if min(row[name] for row in found) < least]
    print(f" {'below the goal: ' + ', '.join(low) if low else 'all goals are reached'}")


def experiment(folder: Path, seed: int, threads: int) -> dict[str, float]:
    """One training from nothing to captions, and what its captions say of pictures that were never trained on."""
    from training.generative.train import train_generative

    scenes = _scenes(seed, TRUSTED, 2 * PICTURES)
    seen = [scene for scene in scenes if (scene.colour, scene.shape) not in NEVER_SEEN][:PICTURES]
    write_set(folder / "shapes", seen, seed)
    write_tokenizer(folder / "tokenizer", [*map(caption_of, seen), f"USER: {QUESTION} ASSISTANT: "])
    write_texts(folder / "texts.json", [caption_of(scene) for scene in seen[:1000]])
    began, busy = time.perf_counter(), time.process_time()
    _contrast(folder, seed, threads)
    train_generative(captioner_spec(folder, seed, threads))
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - busy
    assert frozen_parts_unchanged(folder)
    return measured(folder / "captioner" / "model", seed) | {"seconds": seconds, "CPU seconds": cpu_seconds}


def caption_of(scene: Scene) -> str:
    """What the captioner is to say, word by word."""
    return f"a {scene.colour} {scene.shape} at the {scene.position}"


def _scenes(seed: int, stream: int, count: int) -> list[Scene]:
    made = (random_scene(seed, stream, number) for number in range(count))
    return [replace(scene, size="large", background="cloudy") for scene in made]


def _contrast(folder: Path, seed: int, threads: int) -> None:
    """The picture tower, by captions in many words."""
    from training.contrastive import train_contrastive

    spec = {
        "name": "tower", "task": "contrastive", "data": [{"set": f"{folder}/shapes"}], "model": str(TOWER),
        "batch_size": 128, "samples": 128 * STEPS["contrast"], "lr": 2e-3, "warmup_steps": 20, "weight_decay": 0.1,
        "seed": seed, "device": "cpu", "threads": threads, "output": f"{folder}/tower", "save_every": 10_000,
    }  # fmt: skip
    train_contrastive(TrainingSpec.model_validate(spec))


def captioner_spec(folder: Path, seed: int, threads: int) -> GenerativeSpec:
    """LLaVA in three stages: the language model on text alone, the connector, all."""
    common = {"batch_size": 64, "max_tokens": 192, "weight_decay": 0.01, "lr": 2e-3}
    texts = {"data": [{"instructions": f"{folder}/texts.json"}]}
    pictures = {"data": [{"set": f"{folder}/shapes", "captions": {"plain": 1.0}, "prompts": [QUESTION]}]}
    everything = {"train": ["encoder", "connector", "llm"]}
    stages = [
        common | texts | {"train": ["llm"], "steps": STEPS["text"]},
        common | pictures | {"train": ["connector"], "steps": STEPS["connector"]},
        common | pictures | everything | {"steps": STEPS["all"]},
    ]
    return GenerativeSpec.model_validate(
        {
            "name": "captioner", "task": "generative", "family": "llava", "encoder": {"weights": f"{folder}/tower"},
            "connector": {"vision_feature_layer": -1}, "llm": {"config": LLM}, "tokenizer": f"{folder}/tokenizer",
            "stages": stages, "seed": seed, "device": "cpu", "threads": threads, "save_every": 10_000,
            "output": f"{folder}/captioner",
        }
    )  # fmt: skip


def frozen_parts_unchanged(folder: Path) -> bool:
    """Whether the connector's stage left the encoder and the language model as they were, bit by bit."""
    import torch
    from safetensors.torch import load_file

    first, second = (load_file(folder / "captioner" / f"stage-{n}" / "model" / "model.safetensors") for n in (1, 2))
    changed = [name for name in first if not torch.equal(first[name], second[name])]
    return bool(changed) and all("multi_modal_projector" in name for name in changed)


def measured(model_folder: Path, seed: int) -> dict[str, float]:
    """Shares of captions that name the colour, the shape, and all word by word; of pairs seen, and of those never."""
    from training.generative.build import open_model

    built = open_model(model_folder)
    scenes = _scenes(seed, HELD_OUT, 6 * ASKED)
    seen = [scene for scene in scenes if (scene.colour, scene.shape) not in NEVER_SEEN][:ASKED]
    unseen = [scene for scene in scenes if (scene.colour, scene.shape) in NEVER_SEEN][:ASKED]
    blank = [Image.new("RGB", (SIDE_PX, SIDE_PX), (128, 128, 128))] * len(seen)
    found = _shares(built, seen, [draw(scene, (SIDE_PX, SIDE_PX)) for scene in seen])
    found |= {
        f"unseen {name}": share
        for name, share in _shares(built, unseen, [draw(scene, (SIDE_PX, SIDE_PX)) for scene in unseen]).items()
    }
    return found | {"blank colour": _shares(built, seen, blank)["colour"]}


def _shares(built: Any, scenes: Sequence[Scene], pictures: list[Image.Image]) -> dict[str, float]:
    from training.generative.answer import answer

    said = answer(built, pictures, QUESTION, batch_size=50, max_new_tokens=16)
    return {
        "colour": share_naming(said, [scene.colour for scene in scenes]),
        "shape": share_naming(said, [scene.shape for scene in scenes]),
        "exact": float(np.mean([caption == caption_of(scene) for caption, scene in zip(said, scenes, strict=True)])),
    }


def write_texts(file: Path, captions: Sequence[str]) -> None:
    """Captions as answers without a picture."""
    said = [[{"from": "human", "value": QUESTION}, {"from": "gpt", "value": caption}] for caption in captions]
    file.write_text(json.dumps([{"conversations": turns} for turns in said]))


def write_set(folder: Path, scenes: Sequence[Scene], seed: int) -> None:
    """A curated set of one shard: captions in many words, and in the column `plain` those that the captioner learns."""
    rng = np.random.default_rng((seed, TRUSTED))
    (folder / "v1").mkdir(parents=True)
    tar = folder / "v1" / "shard-000000.tar"
    with open(tar, "wb") as stream, ShardWriter(stream) as writer:
        for number, scene in enumerate(scenes):
            stored = io.BytesIO()
            draw(scene, (SIDE_PX, SIDE_PX)).save(stored, "PNG", compress_level=1)
            members = {"png": stored.getvalue(), "txt": english(scene, rng).encode()}
            writer.add(f"{number:032x}", members | {"json": json.dumps({"plain": caption_of(scene)}).encode()})
    shard = ShardEntry(
        tar="v1/shard-000000.tar", parquet="v1/shard-000000.parquet", rows=len(scenes), parquet_sha256="0" * 64,
        tar_sha256=hashlib.sha256(tar.read_bytes()).hexdigest(), tar_bytes=tar.stat().st_size, parquet_bytes=0,
    )  # fmt: skip
    columns = tuple(ColumnEntry(name=name, type="string", meaning="says what is seen") for name in ("caption", "plain"))
    manifest = Manifest(
        name="shapes", version="v1", rows=len(scenes), pool=len(scenes), shards=(shard,), samples=(), funnel=(),
        columns=columns, spec={}, operators={},
    )  # fmt: skip
    for name in ("v1.json", "manifest.json"):
        (folder / name).write_text(manifest.model_dump_json())


if __name__ == "__main__":
    main()
