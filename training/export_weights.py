"""Which tensor of open_clip is which of transformers: ViT CLIP as CLIPModel, SigLIP's towers as SiglipModel."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from schemas.errors import InputError
from training.model import Model

_BLOCK = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
_TIMM_BLOCK = {"norm1": "layer_norm1", "norm2": "layer_norm2", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
_ATTENTION = ("q_proj", "k_proj", "v_proj")
_PLAIN_VISION = {"pool_type": "tok", "attentional_pool": False, "no_ln_pre": False, "ls_init_value": None}
_PLAIN_TEXT = {"no_causal_mask": False, "embed_cls": False, "proj_bias": False, "proj_type": "linear"}
_SIGLIP_TEXT = {"no_causal_mask": True, "embed_cls": False, "proj_bias": True, "pool_type": "last"}
_BLOCK_EXTRAS = ("block_type", "qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn")


def clip_of(model: Model) -> tuple[Any, dict[str, Tensor]]:
    """Configuration and weights of CLIPModel."""
    from transformers import CLIPConfig

    inner = model.config["model_cfg"]
    vision, text = inner["vision_cfg"], inner["text_cfg"]
    _require_plain(vision, _PLAIN_VISION, "vision_cfg")
    _require_plain(text, _PLAIN_TEXT, "text_cfg")
    if not isinstance(vision.get("layers", 12), int):
        raise InputError("export: transformers has no CLIP with a ResNet; open_clip's format keeps it")
    if model.network.logit_bias is not None:
        raise InputError("export: transformers' CLIPModel has no bias of logits; open_clip's format keeps it")
    visual, words = model.network.visual, getattr(model.network, "text", model.network)
    quick = bool(inner.get("quick_gelu"))
    config = CLIPConfig(
        vision_config=_sizes(visual.transformer, visual.ln_post.eps, _act(vision, quick))
        | {"image_size": model.side_px, "patch_size": visual.patch_size[0], "projection_dim": inner["embed_dim"]},
        text_config=_sizes(words.transformer, words.ln_final.eps, _act(text, quick))
        | {"vocab_size": model.network.vocab_size, "max_position_embeddings": model.network.context_length}
        | {"bos_token_id": None, "eos_token_id": _end_token(model), "projection_dim": inner["embed_dim"]},
        projection_dim=inner["embed_dim"],
    )
    made = {
        "logit_scale": model.network.logit_scale.reshape(()),
        "vision_model.embeddings.class_embedding": visual.class_embedding,
        "vision_model.embeddings.patch_embedding.weight": visual.conv1.weight,
        "vision_model.embeddings.position_embedding.weight": visual.positional_embedding,
        "visual_projection.weight": visual.proj.T,
        "text_projection.weight": words.text_projection.T,
        **_named("vision_model.pre_layrnorm", visual.ln_pre),
        **_named("vision_model.post_layernorm", visual.ln_post),
        **_text_tower(words),
    }
    return config, made | dict(_blocks("vision_model", visual.transformer))


def siglip_of(model: Model) -> tuple[Any, dict[str, Tensor]]:
    """Configuration and weights of SiglipModel; SigLIP 2 of one side is the same."""
    from timm.models.vision_transformer import VisionTransformer
    from transformers import SiglipConfig

    inner, trunk = model.config["model_cfg"], model.network.visual.trunk
    pooled = inner["vision_cfg"].get("timm_pool") == "map" and inner["vision_cfg"].get("timm_proj") == "none"
    if type(trunk) is not VisionTransformer or not pooled or trunk.num_prefix_tokens:
        raise InputError(
            f"export: transformers has no CLIP or SigLIP with the tower {inner['vision_cfg']['timm_model_name']}; "
            "of timm's it has those of SigLIP alone; open_clip's format keeps it"
        )
    _require_plain(inner["text_cfg"], _SIGLIP_TEXT, "text_cfg")
    timm: Any = trunk
    words, pool = model.network.text, timm.attn_pool
    vision_act = "gelu_pytorch_tanh" if getattr(timm.blocks[0].mlp.act, "approximate", "none") == "tanh" else "gelu"
    vision = {
        "hidden_size": timm.embed_dim,
        "intermediate_size": timm.blocks[0].mlp.fc1.out_features,
        "num_hidden_layers": len(timm.blocks),
        "num_attention_heads": timm.blocks[0].attn.num_heads,
        "layer_norm_eps": timm.norm.eps,
        "hidden_act": vision_act,
        "image_size": model.side_px,
        "patch_size": timm.patch_embed.patch_size[0],
    }
    text = _sizes(words.transformer, words.ln_final.eps, _act(inner["text_cfg"], bool(inner.get("quick_gelu"))))
    text |= {"vocab_size": words.vocab_size, "max_position_embeddings": words.context_length}
    text |= {"projection_size": inner["embed_dim"], "bos_token_id": None, "eos_token_id": None}
    bias = model.network.logit_bias
    made = {
        "logit_scale": model.network.logit_scale.reshape(1),
        "logit_bias": torch.zeros(1) if bias is None else bias.reshape(1),
        "vision_model.embeddings.position_embedding.weight": timm.pos_embed[0],
        **_named("vision_model.embeddings.patch_embedding", timm.patch_embed.proj),
        **_named("vision_model.post_layernorm", timm.norm),
        "vision_model.head.probe": pool.latent,
        "vision_model.head.attention.in_proj_weight": torch.cat([pool.q.weight, pool.kv.weight]),
        "vision_model.head.attention.in_proj_bias": torch.cat([pool.q.bias, pool.kv.bias]),
        **_named("vision_model.head.attention.out_proj", pool.proj),
        **_named("vision_model.head.layernorm", pool.norm),
        **_named("vision_model.head.mlp.fc1", pool.mlp.fc1),
        **_named("vision_model.head.mlp.fc2", pool.mlp.fc2),
        **_named("text_model.head", words.text_projection),
        **_text_tower(words),
    }
    return SiglipConfig(vision_config=vision, text_config=text), made | dict(_timm_blocks(timm))


def _text_tower(words: Any) -> dict[str, Tensor]:
    return {
        "text_model.embeddings.token_embedding.weight": words.token_embedding.weight,
        "text_model.embeddings.position_embedding.weight": words.positional_embedding,
        **_named("text_model.final_layer_norm", words.ln_final),
        **dict(_blocks("text_model", words.transformer)),
    }


def _blocks(model: str, transformer: Any) -> Iterator[tuple[str, Tensor]]:
    """The residual blocks of one of open_clip's transformers."""
    for number, block in enumerate(transformer.resblocks):
        start = f"{model}.encoder.layers.{number}"
        yield from _renamed(start, block, _BLOCK)
        yield from _split(start, block.attn.in_proj_weight, block.attn.in_proj_bias)
        yield from _named(f"{start}.self_attn.out_proj", block.attn.out_proj).items()


def _timm_blocks(trunk: Any) -> Iterator[tuple[str, Tensor]]:
    for number, block in enumerate(trunk.blocks):
        start = f"vision_model.encoder.layers.{number}"
        yield from _renamed(start, block, _TIMM_BLOCK)
        yield from _split(start, block.attn.qkv.weight, block.attn.qkv.bias)
        yield from _named(f"{start}.self_attn.out_proj", block.attn.proj).items()


def _renamed(start: str, block: Any, names: Mapping[str, str]) -> Iterator[tuple[str, Tensor]]:
    for theirs, ours in names.items():
        yield from _named(f"{start}.{ours}", block.get_submodule(theirs)).items()


def _split(start: str, weight: Tensor, bias: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Queries, keys and values, which lie in one tensor."""
    for name, part, offset in zip(_ATTENTION, weight.chunk(3), bias.chunk(3), strict=True):
        yield f"{start}.self_attn.{name}.weight", part
        yield f"{start}.self_attn.{name}.bias", offset


def _named(name: str, module: Any) -> dict[str, Tensor]:
    return {f"{name}.weight": module.weight, f"{name}.bias": module.bias}


def _sizes(transformer: Any, eps: float, act: str) -> dict[str, Any]:
    first = transformer.resblocks[0]
    return {
        "hidden_size": transformer.width,
        "intermediate_size": first.mlp.c_fc.out_features,
        "num_hidden_layers": len(transformer.resblocks),
        "num_attention_heads": first.attn.num_heads,
        "layer_norm_eps": eps,
        "hidden_act": act,
    }


def _act(tower: Mapping[str, Any], quick_gelu: bool) -> str:
    tanh = (tower.get("act_kwargs") or {}).get("approximate") == "tanh"
    return "quick_gelu" if quick_gelu else "gelu_pytorch_tanh" if tanh else "gelu"


def _require_plain(tower: Mapping[str, Any], plain: Mapping[str, Any], where: str) -> None:
    """Raise InputError for a setting that transformers' class does not have."""
    default = {"pool_type": "tok" if where == "vision_cfg" else "argmax", "proj_type": "linear"}
    odd = [f"{key}: {tower[key]}" for key in _BLOCK_EXTRAS if tower.get(key)]
    odd += [
        f"{key}: {tower.get(key, default.get(key, False))}"
        for key, value in plain.items()
        if (tower.get(key, default.get(key)) or None) != (value or None)
    ]
    if "hf_model_name" in tower:
        odd = [f"hf_model_name: {tower['hf_model_name']}"]
    if odd:
        raise InputError(f"export: transformers cannot express {where}.{odd[0]}; open_clip's format keeps it")


def _end_token(model: Model) -> int:
    """The token that ends a caption, whose vector is the caption's."""
    text = model.config["model_cfg"]["text_cfg"]
    if text.get("pool_type", "argmax") == "eos":
        return int(text.get("eos_id", 2))
    return int(model.tokenize([""]).max())
