"""What learns in a stage: parts are frozen or not by their roles, and each learns at its own rate."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from schemas.errors import InputError
from schemas.generative import Stage
from training.generative.adapters import add_adapters, is_adapter, merge_adapters
from training.generative.families import Family
from training.generative.stages import require_parts


def learning_role(parameter: str, family: Family, config: Any) -> str:
    """encoder, connector, llm or lora: what `train` and `lr` of a stage call it. The head is the llm's."""
    if is_adapter(parameter):
        return "lora"
    role = family.role_of(parameter.replace(".base_layer.", "."), config)
    return "llm" if role == "head" else role


def freeze(model: Any, family: Family, train: Sequence[str]) -> None:
    """Let the parts in `train` learn and nothing else. Raises InputError for a part that the family has not."""
    require_parts(family, train)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(learning_role(name, family, model.config) in train)


def parameter_groups(model: Any, family: Family, stage: Stage) -> list[dict[str, Any]]:
    """Groups for AdamW of what learns, in the order of `train`; gains and biases (less than 2-D) do not decay."""
    groups = []
    for role in stage.train:
        named = model.named_parameters()
        learns = [p for name, p in named if p.requires_grad and learning_role(name, family, model.config) == role]
        rate = stage.lr[role] if isinstance(stage.lr, Mapping) else stage.lr  # type: ignore[index]
        for decay, chosen in (
            (stage.weight_decay, [p for p in learns if p.ndim >= 2]),
            (0.0, [p for p in learns if p.ndim < 2]),
        ):
            if chosen:
                groups.append({"params": chosen, "lr": rate, "weight_decay": decay, "role": role})
    return groups


def told(model: Any, family: Family) -> str:
    """One line: `trains connector (2,112 parameters); frozen: encoder (20,000), llm (30,000)`."""
    learning: Counter[str] = Counter()
    frozen: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        counts = learning if parameter.requires_grad else frozen
        counts[learning_role(name, family, model.config)] += parameter.numel()
    trains = ", ".join(f"{role} ({count:,} parameters)" for role, count in sorted(learning.items())) or "nothing"
    rests = ", ".join(f"{role} ({count:,})" for role, count in sorted(frozen.items())) or "nothing"
    return f"trains {trains}; frozen: {rests}"


def checkpoint_activations(model: Any, on: bool) -> None:
    """Compute activations twice instead of keeping them, or keep them. Raises InputError where the class cannot."""
    if on and not model.supports_gradient_checkpointing:
        raise InputError(f"checkpointing: transformers' {type(model).__name__} cannot; leave it out")
    if on:
        model.activation_checkpointing_enable({"use_reentrant": False})
    elif model.is_activation_checkpointing:
        model.activation_checkpointing_disable()


def prepare(model: Any, family: Family, stage: Stage, seed: int) -> str:
    """Make a model ready for a stage: adapters, freezing, checkpointing. Returns the line that tells what learns."""
    merge_adapters(model)  # of a stage before
    if stage.lora is not None:
        add_adapters(model, family, stage.lora, seed)
    freeze(model, family, stage.train)
    checkpoint_activations(model, stage.checkpointing)
    return told(model, family)
