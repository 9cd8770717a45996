"""Labels for pictures that are tokens of the vocabulary: Chameleon's, which learns to say them too (arXiv 2405.09818).

transformers' own loss cannot: it takes the logits of picture tokens away before it compares (trap 4). A loss on hidden
states, such as that of answers, can.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from training.generative.build import Built


def with_image_labels(built: Built, inputs: Mapping[str, Any], labels_BL: Tensor) -> Tensor:
    """`labels_BL` in which every placeholder of a picture is to become that picture's token."""
    codes = built.model.get_image_tokens(inputs["pixel_values"])
    placeholders_BL = inputs["input_ids"] == built.model.config.image_token_id
    return labels_BL.masked_scatter(placeholders_BL, codes.to(labels_BL.dtype).flatten())
