"""Quick attention and patches: what open_clip computes, from the same weights."""

import copy
import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor, nn

from training.attention import patches_of, with_quick_attention
from training.lengths import any_length

TINY = json.loads((Path(__file__).parent / "tiny_vit.json").read_text())
PIXELS_BCHW = torch.randn(3, 3, TINY["vision_cfg"]["image_size"], TINY["vision_cfg"]["image_size"])


def _tokens() -> Tensor:
    tokens_BT = torch.randint(1, 400, (3, TINY["text_cfg"]["context_length"]))
    tokens_BT[:, 9] = TINY["text_cfg"].get("vocab_size", 49408) - 1  # the end
    return tokens_BT


def _made(kind: type) -> Any:
    torch.manual_seed(0)
    config: dict[str, Any] = copy.deepcopy(TINY)
    if kind is open_clip.CoCa:
        config["multimodal_cfg"] = {"width": 64, "heads": 2, "layers": 1, "context_length": 24}
        config["vision_cfg"] |= {"attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True}
        config["text_cfg"] |= {"embed_cls": True, "output_tokens": True}
    return kind(**config)


@pytest.mark.parametrize(
    "kind", [open_clip.CLIP, open_clip.CustomTextCLIP, open_clip.CoCa], ids=["CLIP", "CustomTextCLIP", "CoCa"]
)
def test_embeddings_and_gradients_are_those_of_open_clips_own_attention(kind: type) -> None:
    theirs = _made(kind)
    ours = copy.deepcopy(theirs)
    any_length(ours)
    with_quick_attention(ours)
    tokens_BT = _tokens()
    for network in (theirs, ours):
        (network.encode_image(PIXELS_BCHW).pow(3).sum() + network.encode_text(tokens_BT).pow(3).sum()).backward()
    for (name, one), other in zip(theirs.named_parameters(), ours.parameters(), strict=True):
        if one.grad is not None:
            assert torch.allclose(one.grad, other.grad, rtol=1e-3, atol=1e-5), name
    with torch.no_grad():
        assert torch.allclose(theirs.encode_image(PIXELS_BCHW), ours.encode_image(PIXELS_BCHW), atol=1e-5)
        assert torch.allclose(theirs.encode_text(tokens_BT), ours.encode_text(tokens_BT), atol=1e-5)
    quick = sum("is_causal" in vars(module) for module in ours.modules())
    assert quick >= TINY["vision_cfg"]["layers"] + TINY["text_cfg"]["layers"]
    assert theirs.state_dict().keys() == ours.state_dict().keys()


def test_a_caption_does_not_see_what_comes_after_its_end() -> None:
    network = _made(open_clip.CLIP)
    with_quick_attention(network)
    tokens_BT = _tokens()
    changed_BT = tokens_BT.clone()
    changed_BT[:, 12:] = 7
    with torch.no_grad():
        assert torch.equal(network.encode_text(tokens_BT), network.encode_text(changed_BT))
    blocks = list(network.transformer.resblocks)
    assert all(block.is_causal for block in blocks)
    assert not any(block.is_causal for block in network.visual.transformer.resblocks)


def test_patches_are_those_of_the_convolution_whatever_the_picture_and_its_memory() -> None:
    conv = nn.Conv2d(3, 5, 4, 4, bias=False)
    for high, wide in ((8, 12), (9, 15)):
        floats_BCHW = torch.randn(2, 3, high, wide)
        for given in (floats_BCHW, floats_BCHW.to(memory_format=torch.channels_last)):
            assert torch.allclose(patches_of(conv, given), conv(given), atol=1e-6)
