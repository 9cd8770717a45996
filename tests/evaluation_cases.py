"""What the tests of evaluation share: a tiny model saved to a folder, and small pictures with labels and captions."""

import io
import json
import random
import tarfile
from pathlib import Path

import torch
from PIL import Image
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer

from schemas.training import TrainingSpec
from training.model import build_model, save_model

MODEL = str(Path(__file__).with_name("tiny_conv.json"))
COLOURS = {"red": (220, 30, 30), "green": (30, 180, 60), "blue": (40, 60, 220)}


def spec_of(model: str = MODEL, **changes) -> TrainingSpec:
    fields = {
        "name": "small", "task": "contrastive", "data": [{"set": "nowhere"}], "model": model, "batch_size": 2,
        "samples": 8, "warmup_steps": 0, "device": "cpu",
    }  # fmt: skip
    return TrainingSpec.model_validate(fields | changes)


def saved_model(folder: Path, seed: int = 0) -> Path:
    """A model of random weights, as training saves it."""
    torch.manual_seed(seed)
    save_model(build_model(spec_of(), "cpu"), folder)
    return folder


def png(colour: str, seed: int = 0) -> bytes:
    """A picture in a colour, a little different for each seed."""
    draw = random.Random(f"{colour}{seed}")
    tone = tuple(max(0, min(255, level + draw.randint(-20, 20))) for level in COLOURS[colour])
    out = io.BytesIO()
    Image.new("RGB", (40, 36), tone).save(out, "PNG")
    return out.getvalue()


def add(tar: tarfile.TarFile, name: str, data: bytes | str | dict) -> None:
    content = json.dumps(data) if isinstance(data, dict) else data
    content = content.encode() if isinstance(content, str) else content
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


@register_model
def tiny_siglip(pretrained: bool = False, **changes) -> VisionTransformer:
    """SigLIP's picture tower, as timm builds its own, but small."""
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 2}
    changes = {key: value for key, value in changes.items() if key in ("num_classes", "global_pool", "img_size")}
    return VisionTransformer(**sizes | {"class_token": False, "global_pool": "map"} | changes)
