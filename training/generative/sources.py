"""Where a part's configuration and weights come from: a mapping, a file, a folder or hub's name, our own towers."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from schemas.errors import InputError
from schemas.generative import Part
from schemas.nearest import unknown_name

OWN = "open_clip_config.json"
_ANYWHERE = {
    "model_type", "rope_theta", "rope_scaling", "tie_word_embeddings", "architectures", "dtype", "torch_dtype",
    "transformers_version",
}  # fmt: skip


def own_tower(weights: str | None) -> Path | None:
    """The folder of a model of our own contrastive training, where that is what `weights` names."""
    if weights is None:
        return None
    return next((path for path in (Path(weights), Path(weights) / "model") if (path / OWN).is_file()), None)


def settings_of(part: Part, role: str) -> dict[str, Any]:
    """What the specification says of a part's configuration: `config`, from a mapping or a JSON file."""
    if not isinstance(part.config, str):
        return dict(part.config or {})
    try:
        found = json.loads(Path(part.config).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{role}.config {part.config}: cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{role}.config {part.config}: is no mapping of names to values")
    return found


def stored_config(weights: str, role: str) -> Any:
    """The configuration of this role in a folder of weights, or behind a hub's name. Raises InputError."""
    from transformers import AutoConfig

    with as_input_error(f"{role}.weights {weights}"):
        config = AutoConfig.from_pretrained(weights)
    if role == "encoder":
        return getattr(config, "vision_config", config)
    return config.get_text_config(decoder=False)


def made_config(
    model_type: str, settings: Mapping[str, Any], where: str, defaults: Mapping[str, Any] | None = None
) -> Any:
    """A configuration of that type; of `defaults` it takes what it has and `settings` do not say.

    Raises InputError for a type or a name that transformers does not know.
    """
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if model_type not in CONFIG_MAPPING:
        raise InputError(f"{where}: transformers knows no model type {model_type!r}; say e.g. clip_vision_model, llama")
    with as_input_error(where):
        fields = {field.name for field in dataclasses.fields(CONFIG_MAPPING[model_type])}
        taken = {name: value for name, value in (defaults or {}).items() if name in fields}
        rest = {name: value for name, value in (taken | dict(settings)).items() if name != "model_type"}
        return AutoConfig.for_model(model_type, **rest)


def require_names(config_class: Any, settings: Mapping[str, Any], where: str) -> None:
    """Refuse what a configuration does not have, with what it has. Raises InputError."""
    known = {field.name for field in dataclasses.fields(config_class)} | set(config_class.attribute_map)
    for name in settings:
        if name not in known | _ANYWHERE:
            own = known & set(config_class.__annotations__)
            raise InputError(f"{where}: {unknown_name(name, sorted(own), f'{config_class.model_type} has')}")


def as_type(config: Any, model_type: str) -> dict[str, Any]:
    """What of a configuration another type has too: Qwen2's of Qwen2-VL's text, Llama's of Mllama's."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    found = {name: value for name, value in config.to_dict().items() if name not in ("architectures", "dtype")}
    if config.model_type == model_type:
        return found
    names = {field.name for field in dataclasses.fields(CONFIG_MAPPING[model_type])} | {"tie_word_embeddings"}
    return {name: value for name, value in found.items() if name in names}


@contextmanager
def as_input_error(what: str) -> Iterator[None]:
    """A sentence for whatever transformers and the libraries below it raise."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        if isinstance(error, OSError) and "couldn't connect" in said:
            raise InputError(f"{what}: not here, and the hub cannot be reached; name a local folder") from error
        if "Repo id must" in said:  # what the hub's library says of a name with several slashes, or with other signs
            raise InputError(f"{what}: there is no such folder, and no name on the hub is written like this") from error
        raise InputError(f"{what}: {type(error).__name__}: {said[:400]}") from error
