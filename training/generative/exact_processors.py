"""Two processors that tell where answers lie, which transformers' own classes of these names do not.

Idefics2's and Fuyu's write their picture tokens by code of their own, of which the assistant mask knows nothing; Fuyu's
puts its token of the answer's beginning behind whatever it is given, answer included. The general way, which all other
families go, gives the same tokens and the mask. They are saved by the names of their base classes, and load as these.
"""

from typing import Any

import transformers
from transformers.processing_utils import ProcessorMixin


class Idefics2Processor(transformers.Idefics2Processor):
    """Idefics2's, by the general way."""

    __call__ = ProcessorMixin.__call__

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **_: Any) -> str:
        """The tokens of a picture, or of its four quarters and itself; the template keeps pictures apart."""
        one = f"{self.fake_image_token}{self.image_token * self.image_seq_len}"
        return one * (5 if self.image_processor.do_image_splitting else 1) + self.fake_image_token


class FuyuProcessor(transformers.FuyuProcessor):
    """Fuyu's, by the general way; where a picture stands and where an answer begins, the template says."""

    __call__ = ProcessorMixin.__call__

    def prepare_inputs_layout(self, images: Any = None, text: Any = None, **_: Any) -> Any:
        """Pictures one after the other, as they stand in the text."""
        from transformers.image_utils import make_flat_list_of_images

        images, text, *rest = ProcessorMixin.prepare_inputs_layout(self, images=images, text=text)
        return (None if images is None else make_flat_list_of_images(images)), text, *rest

    def _process_images(self, images: Any, **settings: Any) -> Any:
        return super()._process_images(images, return_legacy_image_output=False, **settings | {"return_tensors": "pt"})


def exact(processor: Any) -> Any:
    """The processor, where it is one of the two as its own."""
    own = {kind.__name__: kind for kind in (Idefics2Processor, FuyuProcessor)}.get(type(processor).__name__)
    if own is not None:
        processor.__class__ = own
    return processor
