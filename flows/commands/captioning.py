"""`pairmill caption` and `pairmill ask`: what a trained vision-language model says about pictures."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.commands.verb import verb
from schemas.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

_CONFIG, _TRAINED = "config.json", "data/training/*/model/config.json"
_CAPTION = "Describe the image."
_model_option = click.option(
    "--model", metavar="FOLDER", help="A training's folder, a model's, or a hub's name; default: the only one trained."
)
_device_option = click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto: a GPU if there.")
_tokens_option = click.option(
    "--max-tokens", type=click.IntRange(min=1), default=64, show_default=True, help="Tokens of an answer at most."
)


@verb()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="IMAGE...")
@_model_option
@click.option("--prompt", default=_CAPTION, show_default=True, help="What is asked of each image.")
@_tokens_option
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True, help="Images at a time.")
@_device_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object per image.")
def caption(images: tuple[Path, ...], model: str | None, prompt: str, as_json: bool, **how: Any) -> None:
    """Describe images by a vision-language model that was trained here, or any of its families."""
    said = _answers(list(images), prompt, model, **how)
    for path, text in zip(images, said, strict=True):
        click.echo(json.dumps({"image": str(path), "caption": text}) if as_json else f"{path}: {text}")


@verb()
@click.argument("image", type=click.Path(path_type=Path))
@click.argument("question", metavar='"QUESTION"')
@_model_option
@_tokens_option
@_device_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def ask(image: Path, question: str, model: str | None, as_json: bool, **how: Any) -> None:
    """Ask a vision-language model about an image."""
    text = _answers([image], question, model, batch_size=1, **how)[0]
    click.echo(json.dumps({"image": str(image), "question": question, "answer": text}) if as_json else text)


def _answers(paths: list[Path], question: str, model: str | None, device: str, max_tokens: int, batch_size: int) -> Any:
    """Answers in the order of the paths; pictures are looked at before the model is loaded. Raises InputError."""
    pictures = [_picture(path) for path in paths]
    folder = _model_folder(model)
    import torch

    from training.generative.answer import answer
    from training.generative.build import open_model

    built = open_model(folder)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    built.model.to(device)
    return answer(built, pictures, question, batch_size=batch_size, max_new_tokens=max_tokens)


def _picture(path: Path) -> "Image.Image":
    """A picture from a file, upright, alpha on white. Raises InputError."""
    from PIL import ImageOps

    from schemas.pixels import FORMATS, DecodeError, on_white, open_picture

    try:
        with open_picture(path.read_bytes(), (*FORMATS, "GIF", "AVIF")) as image:
            return on_white(ImageOps.exif_transpose(image))
    except OSError as error:
        raise InputError(f"image {path}: cannot be read: {error.strerror or error}") from error
    except DecodeError as error:
        raise InputError(f"image {path}: {error}") from error


def _model_folder(named: str | None) -> str:
    """The model that was named, or the only one in data/training/. Raises InputError."""
    if named is None:
        found = sorted(str(path.parent) for path in Path().glob(_TRAINED))
        if len(found) == 1:
            return found[0]
        many = f"there are several models: {', '.join(found)}" if found else "no model was trained in data/training/"
        raise InputError(f"{many}; name one with --model")
    for folder in (Path(named), Path(named) / "model"):
        if (folder / _CONFIG).is_file():
            return str(folder)
    if Path(named).is_dir():
        raise InputError(f"--model {named}: holds no {_CONFIG}; name the folder that `train` made, or its model/")
    if named.count("/") > 1 or named.startswith((".", "/")):
        raise InputError(f"--model {named}: there is no such folder")
    return named


VERBS: tuple[Any, ...] = (caption, ask)
