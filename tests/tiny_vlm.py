"""Tiny vision-language models for tests: a tokenizer trained on a few sentences, a small specification per family.

`built(family, folder)` gives the model and its processor; `conversation(question, answer)` is one in transformers'
chat format, `picture(seed)` a picture that no other seed resembles.
"""

import functools
import tempfile
from typing import Any

import numpy as np
from PIL import Image

from schemas.generative import GenerativeSpec
from training.generative.build import Built, build

SENTENCES = (
    "a red square at the top left on grey", "a blue disc at the bottom right on black", "Describe the image.",
    "What is in the picture?", "USER: ASSISTANT: Question: Answer: user assistant system User Assistant", "yes no",
    "a green square and a yellow disc", "the picture shows a disc", "an image of a square",
)  # fmt: skip
LLAMA = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 1024,
}  # fmt: skip
QWEN2 = LLAMA | {"model_type": "qwen2"}
VISION = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
CLIP = VISION | {"model_type": "clip_vision_model"}
SIGLIP = VISION | {"model_type": "siglip_vision_model", "vision_use_head": False}
QWEN_TEXT = {name: value for name, value in LLAMA.items() if name != "model_type"} | {"hidden_size": 64}
QWEN_VISION = {"depth": 2, "hidden_size": 32, "num_heads": 2, "patch_size": 8, "intermediate_size": 64}
PARTS: dict[str, dict[str, Any]] = {
    "llava": {"encoder": {"config": CLIP}, "llm": {"config": LLAMA}},
    "llava_next": {"encoder": {"config": CLIP}, "llm": {"config": LLAMA}},
    "llava_onevision": {"encoder": {"config": SIGLIP}, "llm": {"config": QWEN2}, "image": {"max_tiles": 4}},
    "perception_lm": {
        "encoder": {
            "config": {
                "architecture": "vit_tiny_patch16_224",
                "model_args": {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2},
            }
        },
        "llm": {"config": LLAMA},
        "image": {"max_tiles": 2},
    },
    "internvl": {"encoder": {"config": VISION}, "llm": {"config": QWEN2}, "image": {"max_tiles": 4}},
    "idefics2": {
        "encoder": {"config": VISION},
        "llm": {"config": LLAMA | {"model_type": "mistral"}},
        "connector": {
            "perceiver_config": {
                "resampler_n_latents": 4, "resampler_depth": 1, "resampler_n_heads": 2, "resampler_head_dim": 16,
                "num_key_value_heads": 1,
            }
        },
    },
    "idefics3": {"encoder": {"config": VISION}, "llm": {"config": LLAMA}, "image": {"max_tiles": 4}},
    "smolvlm": {"encoder": {"config": VISION}, "llm": {"config": LLAMA}, "image": {"max_tiles": 4}},
    "blip2": {
        "encoder": {"config": VISION},
        "llm": {
            "config": {
                "model_type": "opt", "hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
                "word_embed_proj_dim": 32, "max_position_embeddings": 256, "dropout": 0.0,
            }
        },
        "connector": {
            "num_query_tokens": 4,
            "qformer_config": {
                "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
                "vocab_size": 16, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
            },
        },
    },
    "qwen2_vl": {
        "encoder": {"config": {"depth": 2, "embed_dim": 32, "num_heads": 2, "patch_size": 8, "mlp_ratio": 2}},
        "llm": {"config": QWEN_TEXT},
    },
    "qwen2_5_vl": {
        "encoder": {"config": QWEN_VISION | {"window_size": 32, "fullatt_block_indexes": [1]}},
        "llm": {"config": QWEN_TEXT},
    },
    "qwen3_vl": {
        "encoder": {"config": QWEN_VISION | {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]}},
        "llm": {"config": QWEN_TEXT | {"head_dim": 16}},
    },
    "mllama": {
        "encoder": {
            "config": {
                "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_global_layers": 1,
                "attention_heads": 2, "image_size": 32, "patch_size": 8, "intermediate_layers_indices": [0],
            }
        },
        "llm": {
            "config": {name: value for name, value in LLAMA.items() if name != "model_type"}
            | {"num_hidden_layers": 3, "cross_attention_layers": [1]}
        },
        "image": {"max_tiles": 2},
    },
    "fuyu": {
        "llm": {
            "config": {
                "model_type": "persimmon", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
                "num_attention_heads": 2, "max_position_embeddings": 256,
            }
        },
        "connector": {"patch_size": 8, "image_size": 32},
    },
    "chameleon": {
        "encoder": {
            "config": {
                "embed_dim": 16, "num_embeddings": 32, "latent_channels": 16, "resolution": 32, "base_channels": 32,
                "channel_multiplier": [1, 1, 1], "num_res_blocks": 1,
            }
        },
        "llm": {"config": {name: value for name, value in LLAMA.items() if name != "model_type"}},
    },
}  # fmt: skip
PARTS["blip2_t5"] = PARTS["blip2"] | {
    "llm": {
        "config": {
            "model_type": "t5", "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2,
            "dropout_rate": 0.0,
        }
    }
}  # fmt: skip
STAGE = {"train": ["connector"], "data": [{"set": "data/demo/curated/demo"}], "steps": 1, "batch_size": 2, "lr": 1e-3}


@functools.cache
def tokenizer_folder() -> str:
    """A folder with a tokenizer of bytes and a few words, without chat template or tokens of pictures."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(SENTENCES, trainer)
    folder = tempfile.mkdtemp(prefix="tiny_tokenizer")
    PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    ).save_pretrained(folder)
    return folder


def spec_of(family: str, **changes: Any) -> GenerativeSpec:
    """A specification of a tiny model; `blip2_t5` is BLIP-2 with a T5."""
    stage = STAGE if family != "chameleon" else STAGE | {"train": ["llm"]}
    fields = {
        "name": "tiny", "task": "generative", "family": family.removesuffix("_t5"), "tokenizer": tokenizer_folder(),
        "stages": [stage], **PARTS[family],
    }  # fmt: skip
    return GenerativeSpec.model_validate(fields | changes)


def built(family: str, **changes: Any) -> Built:
    """A tiny model with its processor."""
    return build(spec_of(family, **changes))


def picture(seed: int, width_px: int = 48, height_px: int = 40) -> Image.Image:
    """A picture of smooth random colours."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(small).resize((width_px, height_px), Image.Resampling.BICUBIC)


def conversation(question: str, answer: str | None, pictures: list[Image.Image]) -> list[dict[str, Any]]:
    """One question about pictures, and its answer if there is one, in transformers' chat format."""
    shown = [{"type": "image", "image": one} for one in pictures]
    asked = [{"role": "user", "content": [*shown, {"type": "text", "text": question}]}]
    return asked if answer is None else [*asked, {"role": "assistant", "content": [{"type": "text", "text": answer}]}]
