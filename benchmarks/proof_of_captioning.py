"""Proof of learning: a vision-language model put together from our own parts says what it never saw together.

    python benchmarks/proof_of_captioning.py [--seeds 0 1 2 3 4] [--threads 2]

A small ViT learns by contrast, and becomes the encoder of a LLaVA with a tiny Qwen2, which reads by a tokenizer made
from the texts. Five of the thirty pairs of colour and shape are in no text and no picture of any stage; captions of
pictures that show them are what counts. Shapes are large and their backgrounds cloudy: of smaller ones on busier
grounds a ViT of this size learns little in this time. Goals: colour 0.95, shape 0.70; of a blank picture colour at most
0.30; the parts that a stage freezes unchanged, bit by bit; under 4 minutes for each seed on 2 cores. Printed last are
the gates for tests: 0.9 × the minimum over the seeds.

What it took. A captioner soon finds that after `red` comes no `circle`, while it still cannot tell shapes, and keeps to
it. So nothing may teach that before shapes are certain: tower, connector and captioner first learn from colours of
which none lacks a shape (white, and eight between the scenes' own), and a short last stage with low rates adds the
twenty-five pairs. The language model first learns from texts to put in order the words that stand before it, among them
many others; without that the connector alone learns nothing. Adam's beta2 of 0.98 and rates of 4e-3, not 0.999 and
2e-3: the texts take 130 steps of 32, not 180 of 64. Patches of 8 px in a wider tower, not of 4 px.
Measured on one thread each, seeds 0 to 4 (0 and 1 were looked at while this was made): colour 0.985, 0.970, 1.000,
0.980, 1.000; shape 0.930, 0.775, 0.780, 0.730, 0.810; of other pairs colour 0.955 and shape 0.930 at least; blank 0,
since a grey one is called by a colour that no pair has; 121 to 132 CPU seconds, 123 s where two ran alone. With 170
steps of contrast and 260 of texts it takes 109, and names 0.62 and 0.53 of the shapes (seeds 0 and 1).

What did not work, by the share of unseen pairs' shapes, seed 0: trained on the 25 pairs throughout 0.07; the shape
before the colour 0.05; questions for colour, shape and place mixed in 0.00; the texts that put words in order 0.33,
with eight more colours throughout 0.48, and with patches of 8 px 0.59. Four questions to a picture are learnt more
slowly. A last stage of 150 steps at rates up to 1e-3 on the 25 pairs alone took the shapes from 0.84 to 0.52. Other
colours made by swapping a picture's bands, farther from the scenes' own, and shorter texts: 0.41.
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
from flows.demo_web.scenes import COLOURS, HELD_OUT, POSITIONS, SHAPES, TRUSTED, Scene, random_scene
from schemas.generative import GenerativeSpec
from schemas.manifest import ColumnEntry, Manifest, ShardEntry
from schemas.shard import ShardWriter
from schemas.training import TrainingSpec

TOWER = Path(__file__).parent.parent / "pipelines" / "training" / "models" / "small_vit.json"
NEVER_SEEN = frozenset(zip(COLOURS, SHAPES, strict=False))  # five pairs; each colour and shape is seen with others
SIDE_PX, ASKED = 32, 200
OTHERS, SHOWN, TEXTS = 6000, 2000, 5000
QUESTION = "What does it show?"
LEAST = {"colour": 0.95, "shape": 0.70}
# Colours between two of the scenes' own: a picture is the mean of two that differ in the shape's colour alone.
OTHER_COLOURS = {
    "orange": ("red", "yellow"), "pink": ("red", "white"), "brown": ("red", "green"), "teal": ("green", "blue"),
    "lime": ("green", "yellow"), "azure": ("blue", "white"), "lilac": ("purple", "white"), "grey": ("blue", "yellow"),
}  # fmt: skip
OTHER_THINGS = (
    "house", "tree", "dog", "cat", "car", "boat", "ring", "box", "cup", "bird", "heart", "moon", "cube", "line", "door",
    "lamp", "road", "fish", "hat", "key",
)  # fmt: skip
OTHER_PLACES = ("middle", "left", "right", "top", "bottom")
LLM = {
    "model_type": "qwen2", "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip
STEPS = {"contrast": 250, "texts": 360, "connector": 100, "others": 500, "shapes": 120}


def main() -> None:
    """Train and measure seed by seed; print the gates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    names = ("colour", "shape", "seen colour", "seen shape", "blank colour", "seconds", "CPU seconds")
    print(f"{'seed':>6}" + "".join(f"{name:>15}" for name in names))
    found = []
    for seed in asked.seeds:
        with tempfile.TemporaryDirectory() as folder:
            row = experiment(Path(folder), seed, asked.threads)
        print(f"{seed:>6}" + "".join(f"{row[name]:>15.3f}" for name in names), flush=True)
        found.append(row)
    gates = {name: 0.9 * min(row[name] for row in found) for name in names[:4]}
    print(" gates" + "".join(f"{gate:>15.3f}" for gate in gates.values()))
    low = [name for name, least in LEAST.items() if min(row[name] for row in found) < least]
    print(f" {'below the goal: ' + ', '.join(low) if low else 'all goals are reached'}")


def experiment(folder: Path, seed: int, threads: int) -> dict[str, float]:
    """One training from nothing to captions, and what its captions say of pairs that were never trained on."""
    from training.generative.train import train_generative

    others = scenes_of(seed, TRUSTED, OTHERS, ("white", *OTHER_COLOURS))
    write_set(folder / "others", others, seed)
    shapes = [scene for scene in scenes_of(seed, TRUSTED, 2 * SHOWN) if not _is_held_out(scene)]
    write_set(folder / "shapes", shapes[:SHOWN], seed)
    texts = write_texts(folder / "texts.json", seed)
    write_tokenizer(folder / "tokenizer", [*texts, *map(caption_of, others), f"USER: {QUESTION} ASSISTANT: "])
    began, busy = time.perf_counter(), time.process_time()
    _contrast(folder, seed, threads)
    train_generative(captioner_spec(folder, seed, threads))
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - busy
    assert frozen_parts_unchanged(folder)
    return measured(folder / "captioner", seed) | {"seconds": seconds, "CPU seconds": cpu_seconds}


def caption_of(scene: Scene) -> str:
    """What the captioner is to say, word by word."""
    return f"a {scene.colour} {scene.shape} at the {scene.position}"


def scenes_of(seed: int, stream: int, count: int, colours: Sequence[str] = COLOURS) -> list[Scene]:
    """Large shapes in these colours on cloudy ground; of smaller ones on busier ground so small a ViT learns little."""
    rng = np.random.default_rng((seed, stream, len(colours)))
    made = [random_scene(seed, stream, number) for number in range(count)]
    return [
        replace(scene, size="large", background="cloudy", colour=colours[int(rng.integers(len(colours)))])
        for scene in made
    ]


def painted(scene: Scene) -> Image.Image:
    """The scene in its colour, be it one of the scenes' own or another."""
    mixed = OTHER_COLOURS.get(scene.colour, (scene.colour,))
    drawn = [draw(replace(scene, colour=colour), (SIDE_PX, SIDE_PX)) for colour in mixed]
    return Image.blend(drawn[0], drawn[-1], 0.5)


def _is_held_out(scene: Scene) -> bool:
    return (scene.colour, scene.shape) in NEVER_SEEN


def _contrast(folder: Path, seed: int, threads: int) -> None:
    """The picture tower, by captions in many words."""
    from training.contrastive import train_contrastive

    spec = {
        "name": "tower", "task": "contrastive", "data": [{"set": f"{folder}/others"}], "model": str(TOWER),
        "batch_size": 128, "samples": 128 * STEPS["contrast"], "lr": 2e-3, "warmup_steps": 20, "weight_decay": 0.1,
        "seed": seed, "device": "cpu", "threads": threads, "output": f"{folder}/tower", "save_every": 10_000,
    }  # fmt: skip
    train_contrastive(TrainingSpec.model_validate(spec))


def captioner_spec(folder: Path, seed: int, threads: int) -> GenerativeSpec:
    """LLaVA in stages: the language model on texts alone; the connector; all; all, with the colours that are asked."""
    others, shapes = (
        {"set": f"{folder}/{name}", "captions": {"plain": 1.0}, "prompts": [QUESTION]} for name in ("others", "shapes")
    )
    everything = ["encoder", "connector", "llm"]
    stages: list[dict[str, Any]] = [
        {"train": ["llm"], "data": [{"instructions": f"{folder}/texts.json"}], "steps": STEPS["texts"], "lr": 4e-3},
        {"train": ["connector"], "data": [others], "steps": STEPS["connector"], "lr": 2e-3},
        {
            "train": everything, "data": [others], "steps": STEPS["others"],
            "lr": {"encoder": 2e-3, "connector": 2e-3, "llm": 3e-4},
        },
        {
            "train": everything, "data": [others, shapes], "steps": STEPS["shapes"],
            "lr": 3e-4,
        },
    ]  # fmt: skip
    common = {"batch_size": 32, "max_tokens": 192, "weight_decay": 0.01, "beta2": 0.98}
    return GenerativeSpec.model_validate(
        {
            "name": "captioner", "task": "generative", "family": "llava", "encoder": {"weights": f"{folder}/tower"},
            "connector": {"vision_feature_layer": -1}, "llm": {"config": LLM}, "tokenizer": f"{folder}/tokenizer",
            "stages": [common | stage for stage in stages], "seed": seed, "device": "cpu", "threads": threads,
            "save_every": 10_000, "output": f"{folder}/captioner",
        }
    )  # fmt: skip


def frozen_parts_unchanged(folder: Path) -> bool:
    """Whether the connector's stage left the encoder and the language model as they were, bit by bit."""
    import torch
    from safetensors.torch import load_file

    first, second = (load_file(folder / "captioner" / f"stage-{n}" / "model" / "model.safetensors") for n in (1, 2))
    changed = [name for name in first if not torch.equal(first[name], second[name])]
    return bool(changed) and all("multi_modal_projector" in name for name in changed)


def measured(run: Path, seed: int) -> dict[str, float]:
    """Shares of captions that name the colour and the shape, of pairs never seen and of others; losses of stage 2."""
    from training.generative.build import open_model

    built = open_model(run / "model")
    scenes = scenes_of(seed, HELD_OUT, 8 * ASKED)
    unseen = [scene for scene in scenes if _is_held_out(scene)][:ASKED]
    seen = [scene for scene in scenes if not _is_held_out(scene)][:ASKED]
    found = _shares(built, unseen, [painted(scene) for scene in unseen])
    found |= {f"seen {name}": share for name, share in _shares(built, seen, [painted(s) for s in seen]).items()}
    blank = [Image.new("RGB", (SIDE_PX, SIDE_PX), (128, 128, 128))] * len(seen)
    found["blank colour"] = _shares(built, seen, blank)["colour"]
    lines = (run / "stage-2" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    return found | {"connector's gain": float(np.mean(losses[:5]) - np.mean(losses[-5:]))}


def _shares(built: Any, scenes: Sequence[Scene], pictures: list[Image.Image]) -> dict[str, float]:
    from training.generative.answer import answer

    said = answer(built, pictures, QUESTION, batch_size=100, max_new_tokens=16)
    return {name: share_naming(said, [getattr(scene, name) for scene in scenes]) for name in ("colour", "shape")}


def write_texts(file: Path, seed: int) -> list[str]:
    """Three words, and an answer that puts them in order: a language model learns to say what stands before it."""
    rng = np.random.default_rng((seed, TRUSTED))
    vocabulary = ((*COLOURS, *OTHER_COLOURS), (*SHAPES, *OTHER_THINGS), (*POSITIONS, *OTHER_PLACES))
    entries: list[dict[str, Any]] = []
    texts: list[str] = []
    while len(entries) < TEXTS:
        colour, thing, place = (words[int(rng.integers(len(words)))] for words in vocabulary)
        if (colour, thing) in NEVER_SEEN:
            continue
        asked = f"{' '.join(rng.permutation([colour, thing, place]))}\n{QUESTION}"
        said = f"a {colour} {thing} at the {place}"
        entries.append({"conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": said}]})
        texts += [asked, said]
    file.write_text(json.dumps(entries))
    return texts


def write_set(folder: Path, scenes: Sequence[Scene], seed: int) -> None:
    """A curated set of one shard: captions in many words, and in the column `plain` those that the captioner learns."""
    rng = np.random.default_rng((seed, TRUSTED))
    (folder / "v1").mkdir(parents=True)
    tar = folder / "v1" / "shard-000000.tar"
    with open(tar, "wb") as stream, ShardWriter(stream) as writer:
        for number, scene in enumerate(scenes):
            stored = io.BytesIO()
            painted(scene).save(stored, "PNG", compress_level=1)
            members = {"png": stored.getvalue(), "txt": english(scene, rng).encode()}
            writer.add(f"{number:032x}", members | {"json": json.dumps({"plain": caption_of(scene)}).encode()})
    shard = ShardEntry(
        tar="v1/shard-000000.tar", parquet="v1/shard-000000.parquet", rows=len(scenes), parquet_sha256="0" * 64,
        tar_sha256=hashlib.sha256(tar.read_bytes()).hexdigest(), tar_bytes=tar.stat().st_size, parquet_bytes=0,
    )  # fmt: skip
    columns = tuple(ColumnEntry(name=name, type="string", meaning="says what is seen") for name in ("caption", "plain"))
    manifest = Manifest(
        name=folder.name, version="v1", rows=len(scenes), pool=len(scenes), shards=(shard,), samples=(), funnel=(),
        columns=columns, spec={}, operators={},
    )  # fmt: skip
    for name in ("v1.json", "manifest.json"):
        (folder / name).write_text(manifest.model_dump_json())


if __name__ == "__main__":
    main()
