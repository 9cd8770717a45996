"""Low-rank adapters on the linear layers of a language model, by peft (LoRA, arXiv 2106.09685).

They are put into the model itself, which keeps its class and its way of generating; merged, nothing is left of them.
"""

import copy
from typing import Any

from schemas.generative import Lora
from training.generative.families import Family

_ADAPTER = "default"


def is_adapter(parameter: str) -> bool:
    """Whether a parameter is an adapter's, by its name."""
    return ".lora_A." in parameter or ".lora_B." in parameter


def add_adapters(model: Any, family: Family, lora: Lora, seed: int) -> None:
    """Put adapters of new weights into every linear layer of the language model but its head."""
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    layers = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and _is_llm(name, family, model.config)
    ]
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=layers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model, adapter_name=_ADAPTER)


def _is_llm(name: str, family: Family, config: Any) -> bool:
    inside = any(name.startswith(f"{prefix}.") for prefixes in family.roles.values() for prefix in prefixes)
    return inside and family.role_of(f"{name}.weight", config) == "llm"


def merge_adapters(model: Any) -> None:
    """Add what the adapters learnt to the weights below them, and take the adapters out. In place."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge(safe_merge=True)
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, module.get_base_layer())
    if hasattr(model, "peft_config"):  # peft's note that there are adapters
        del model.peft_config
        model._hf_peft_config_loaded = False


def merged(model: Any) -> Any:
    """The model without adapters: itself where it has none, else a copy whose weights know what they learnt."""
    if not any(is_adapter(name) for name, _ in model.named_parameters()):
        return model
    without = copy.deepcopy(model)
    merge_adapters(without)
    return without
