"""What an open_clip model is made of: its configuration by name or from a JSON file, checked before it is built."""

import difflib
import json
from pathlib import Path
from typing import Any

from schemas.errors import InputError

_POOLED_BY_LARGEST = "argmax"


def model_config(name: str) -> dict[str, Any]:
    """{model_cfg, preprocess_cfg} of an open_clip name or of a JSON file that holds them, or model_cfg alone."""
    if not name.endswith(".json"):
        import open_clip

        known = open_clip.get_model_config(name)
        if known is not None:
            return _contrastive(name, {"model_cfg": known})
        near = difflib.get_close_matches(name, open_clip.list_models(), 3)
        hint = f"did you mean {' or '.join(near)}?" if near else "name one of open_clip's, or a path that ends in .json"
        raise InputError(f"model {name!r}: open_clip has none of that name; {hint}")
    try:
        found = json.loads(Path(name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"model {name}: there is no such file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"model {name}: cannot be read as JSON: {error}") from error
    return _contrastive(name, found if isinstance(found, dict) else {})


def _contrastive(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """The configuration in its parts, of a CoCa its two towers. Raises InputError where it is none of open_clip's."""
    inner = found.get("model_cfg", found)
    missing = [part for part in ("embed_dim", "vision_cfg", "text_cfg") if part not in inner]
    if missing:
        raise InputError(f"model {name}: is no configuration of an open_clip model; it lacks {', '.join(missing)}")
    inner = _towers_of_coca(inner) if "multimodal_cfg" in inner else inner
    text = inner["text_cfg"]
    own_words = "hf_tokenizer_name" in text and "hf_model_name" not in text
    if own_words and text.get("pool_type", _POOLED_BY_LARGEST) == _POOLED_BY_LARGEST:
        raise InputError(
            f"model {name}: text_cfg takes the largest token for the end of a caption, which it is not with the "
            f"tokenizer {text['hf_tokenizer_name']}; say `pool_type: eos` with its eos_id, or `pool_type: last`"
        )
    return {"model_cfg": inner, "preprocess_cfg": found.get("preprocess_cfg", {})}


def _towers_of_coca(inner: dict[str, Any]) -> dict[str, Any]:
    """A CoCa without its decoder, which only its captioning loss trains; towers give vectors alone, no tokens."""
    towers = {key: value for key, value in inner.items() if key != "multimodal_cfg"}
    for tower in ("vision_cfg", "text_cfg"):
        towers[tower] = {**towers[tower], "output_tokens": False}
    return {**towers, "custom_text": True}
