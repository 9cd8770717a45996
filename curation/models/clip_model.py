"""An open_clip model by its name or folder: what can be known of it without importing open_clip (six seconds)."""

import difflib
import hashlib
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from schemas.errors import InputError

CONFIG, TEXT_TOWER = "open_clip_config.json", "text_tower"
_WEIGHTS = (".safetensors", ".bin", ".pth")
_BESIDE_WEIGHTS = (".json", ".txt", ".model")  # configuration and tokenizer


@dataclass(frozen=True)
class ClipModel:
    """Which model: a folder as open_clip's save_for_hf writes it, or open_clip's name with a tag or file of weights."""

    model: str
    weights: str | None

    @property
    def folder(self) -> Path | None:
        """The model's folder where it is a local one."""
        return Path(self.model) if (Path(self.model) / CONFIG).is_file() else None

    @property
    def width(self) -> int:
        """Numbers per vector. Raises InputError where there is no such model."""
        found = self._config().get("embed_dim")
        if not isinstance(found, int):
            raise InputError(f"model {self.model}: its configuration has no embed_dim; is it an open_clip model?")
        return found

    @property
    def timm_side_px(self) -> int | None:
        """The side of the pictures that a timm tower is to be built for, which open_clip leaves undone; else None."""
        tower = self._config().get("vision_cfg", {})
        return tower.get("image_size", 224) if self.folder and "timm_model_name" in tower else None

    @property
    def weights_file(self) -> Path:
        """A folder's weights, safetensors before pickles."""
        return min(self._files(_WEIGHTS), key=lambda path: _WEIGHTS.index(path.suffix))

    def check(self) -> None:
        """Raise InputError for a model that does not exist, or one without weights."""
        assert self.width
        if self.folder is None:
            if not self.weights:
                raise InputError(f"model {self.model}: name its weights too, as in `weights: openai`")
        elif self.weights:
            raise InputError(f"model {self.model}: a folder brings its own weights; leave out `weights`")
        elif not self._files(_WEIGHTS):
            raise InputError(f"model {self.model}: the folder holds no weights ({', '.join(_WEIGHTS)})")

    def digest(self) -> str:
        """SHA-256 of a folder's weights, configuration and tokenizer; a published tag stands for its own."""
        if self.folder is not None:
            files = [(file.name, sha256_of(file)) for file in self._files(_WEIGHTS + _BESIDE_WEIGHTS)]
            return hashlib.sha256(json.dumps(files).encode()).hexdigest()
        file = Path(self.weights or "")
        return f"{self.model}/{sha256_of(file) if file.is_file() else self.weights}"

    def _files(self, suffixes: Sequence[str]) -> list[Path]:
        assert self.folder is not None
        return sorted(path for path in self.folder.iterdir() if path.suffix in suffixes and path.is_file())

    def _config(self) -> dict[str, Any]:
        folder = self.folder
        if folder is not None:
            try:
                return dict(json.loads((folder / CONFIG).read_text("utf-8"))["model_cfg"])
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"model {self.model}: {CONFIG} is not as save_for_hf writes it: {error!r}") from error
        known = _published()
        name = self.model.replace("/", "-")  # ViT-B/32 is another spelling, which open_clip takes too
        if name not in known:
            near = difflib.get_close_matches(name, known, 3, 0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else "see open_clip.list_models()"
            raise InputError(f"model {self.model!r}: is no folder with {CONFIG} and no open_clip model; {hint}")
        return dict(json.loads(known[name].read_text("utf-8")))


@cache
def _published() -> dict[str, Path]:
    """open_clip's model names and their configurations, found without importing it."""
    spec = importlib.util.find_spec("open_clip")
    assert spec is not None
    assert spec.submodule_search_locations
    folder = Path(next(iter(spec.submodule_search_locations))) / "model_configs"
    return {path.stem: path for path in sorted(folder.glob("*.json"))}


def sha256_of(path: Path | str) -> str:
    """The SHA-256 of a file of weights; computed again only where its length or time changed."""
    path = Path(path)
    stat = path.stat()
    return _sha256(path.absolute(), stat.st_size, stat.st_mtime_ns)


@cache
def _sha256(path: Path, size: int, changed_ns: int) -> str:
    """The digest of a file that has this length and was last changed then; weights are large."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
