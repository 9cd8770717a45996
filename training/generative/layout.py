"""What the data of a stage are like for its model: the facts of its family, and how much a sample may hold."""

from training.generative.build import Built
from training.generative.collation import Layout
from training.generative.course import StageCourse
from training.generative.encoding import Encoder
from training.generative.packing import Budget
from training.generative.positions import sample_positions


def encoder_of(built: Built, course: StageCourse) -> Encoder:
    """What makes samples of conversations, as the stage learns from them."""
    if course.stage.objective == "blip2_stage1":
        from training.generative.blip2_stage1_learner import CaptionEncoder

        return CaptionEncoder(built, course.stage.max_tokens)
    return Encoder(built.processor, layout_of(built), budget_of(course))


def layout_of(built: Built) -> Layout:
    """How samples become a batch of this model."""
    family, config = built.family, built.model.config
    return Layout(
        family.count_tiles,
        packs=family.packs,
        pad_id=built.processor.tokenizer.pad_token_id or 0,
        stacked=family.stacked,
        positions=sample_positions(built),
        videos=bool(family.video),
        call=family.call,
        needs_pictures=family.needs_pictures,
        decoder_start_id=config.text_config.decoder_start_token_id if family.answers_apart(config) else None,
    )


def budget_of(course: StageCourse) -> Budget:
    """What a sample, or a pack, may hold."""
    stage = course.stage
    return Budget(stage.max_tokens, stage.max_pack_tiles)
