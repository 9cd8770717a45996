"""The model of BLIP-2's first stage, and how the second one goes on from it.

The first stage trains and saves transformers' Blip2ForImageTextRetrieval: encoder, Q-Former and queries, and what reads
captions, which the Q-Former does with the specification's own tokenizer and three tokens more. The second stage takes
encoder, Q-Former and queries over into Blip2ForConditionalGeneration, bit by bit, and leaves the rest behind.
"""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from schemas.errors import InputError
from schemas.generative import Captions, GenerativeSpec, Stage
from training.generative.build import Built, build
from training.generative.families import FAMILIES
from training.generative.sources import as_input_error

OBJECTIVE = "blip2_stage1"
STARTS, SPEAKS, ENDS = "[CLS]", "[DEC]", "[SEP]"
"""What a caption starts with, what it starts with where it is told, and its end; named as BERT and the paper do."""
_TEMPERATURE = "temperature"
_FIRST_TEMPERATURE = 0.07
_FAMILY = replace(
    FAMILIES["blip2"],
    model="Blip2ForImageTextRetrieval",
    roles={
        "encoder": ("vision_model",),
        "connector": (
            "qformer", "query_tokens", "embeddings", "vision_projection", "text_projection", "itm_head", _TEMPERATURE,
        ),
    },
    objectives=(OBJECTIVE,),
)  # fmt: skip


def start(spec: GenerativeSpec, number: int, before: Path | None) -> Built:
    """The model that a first stage, or the stage after one, begins with; `before` is what the stage before left.

    Raises InputError.
    """
    if spec.stages[number].objective == OBJECTIVE:
        return _new(spec) if before is None else _opened(before)
    assert before is not None
    return second_stage(spec, before)


def second_stage(spec: GenerativeSpec, first: Path) -> Built:
    """The whole BLIP-2 of a specification, with encoder, Q-Former and queries as a first stage left them."""
    built, learnt = build(spec), _opened(first).model.state_dict()
    own = {name: tensor for name, tensor in built.model.state_dict().items() if not name.startswith("language_")}
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(learnt[name])
    return built


def require_first_stages(spec: GenerativeSpec) -> None:
    """Raises InputError for what a first stage cannot be asked for."""
    first = [number for number, stage in enumerate(spec.stages) if stage.objective == OBJECTIVE]
    for place, number in enumerate(first):
        if number != place:
            raise InputError(
                f"stages[{number}].objective: {OBJECTIVE} comes before stages that learn answers; put it first"
            )
        _require_first_stage(spec.stages[number], f"stages[{number}]")
    if first and spec.weights is not None:
        raise InputError(f"weights: {OBJECTIVE} begins with parts; name encoder and llm instead of a whole model")
    if len(first) == len(spec.stages) and spec.evaluate:
        raise InputError(
            f"evaluate: a model of {OBJECTIVE} alone answers nothing; add a stage of answers, or leave it out"
        )


def _require_first_stage(stage: Stage, where: str) -> None:
    other = [role for role in stage.train if role not in ("encoder", "connector")]
    if other:
        raise InputError(f"{where}.train: {OBJECTIVE} knows no {other[0]}; it can train connector and encoder")
    if not all(isinstance(entry, Captions) for entry in stage.data):
        raise InputError(f"{where}.data: {OBJECTIVE} learns from captions; name curated sets (set), no instructions")
    if stage.accumulate > 1:
        raise InputError(f"{where}.accumulate: {OBJECTIVE} contrasts the pairs of a whole batch; leave it out")


def _new(spec: GenerativeSpec) -> Built:
    """New weights by the seed, but for those of the encoder that the specification names."""
    from transformers import Blip2ForImageTextRetrieval

    from training.generative.part_weights import load_encoder

    given = build(spec, meta=True)  # which says how pictures look, and how wide everything is
    processor = _processor(given.processor)
    config = copy.deepcopy(given.model.config)
    config.image_token_index = None  # else transformers looks for queries' places before each caption
    reader = config.qformer_config
    reader.use_qformer_text_input, reader.vocab_size, reader.pad_token_id = True, len(processor.tokenizer), None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        model = Blip2ForImageTextRetrieval(config)
        torch.nn.init.normal_(model.query_tokens, std=reader.initializer_range)  # equal ones would stay equal
    if spec.encoder is not None and spec.encoder.weights is not None:
        load_encoder(model, _FAMILY, spec.encoder.weights)
    return _built(model, processor)


def _processor(given: Any) -> Any:
    """Pictures as they are given, and a tokenizer that sets marks around captions."""
    from tokenizers.processors import TemplateProcessing
    from transformers import Blip2Processor

    tokenizer = copy.deepcopy(given.tokenizer)
    missing = [token for token in (STARTS, SPEAKS, ENDS) if token not in tokenizer.get_vocab()]
    tokenizer.add_tokens(missing, special_tokens=True)
    ids = [(token, tokenizer.convert_tokens_to_ids(token)) for token in (STARTS, ENDS)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{STARTS} $A {ENDS}", pair=None, special_tokens=ids
    )
    tokenizer.chat_template = None
    return Blip2Processor(given.image_processor, tokenizer)


def _opened(folder: Path) -> Built:
    """What a first stage has saved."""
    from transformers import AutoProcessor, Blip2ForImageTextRetrieval

    with as_input_error(f"model {folder}"):
        model = Blip2ForImageTextRetrieval.from_pretrained(folder, dtype=torch.float32)
        return _built(model, AutoProcessor.from_pretrained(folder))


def _built(model: Any, processor: Any) -> Built:
    """With a temperature, which transformers' class has not: it is not saved, and each stage begins with the same."""
    model.register_parameter(_TEMPERATURE, torch.nn.Parameter(torch.tensor(_FIRST_TEMPERATURE)))
    model._keys_to_ignore_on_save = [_TEMPERATURE]
    return Built(model.eval(), processor, _FAMILY)
