"""What pipelines/training/*.yaml may say of a generative task: a vision-language model, trained in stages."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from schemas.training import Name, Pictures, TrainingSet, ZeroShot

Role = Literal["encoder", "connector", "llm"]
_ASKED = ("benchmark", "captions", "zeroshot", "command")
LearningRate = Annotated[float, Field(gt=0, le=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Part(_Frozen):
    """A part of the model: transformers' configuration of it, weights to start from, or both."""

    config: Mapping[str, Any] | str | None = Field(
        None, description="transformers' configuration, as a mapping or a path to its JSON; else that of the weights"
    )
    weights: str | None = Field(None, description="a folder of weights, or a hub's name; else random weights")


class Images(_Frozen):
    """How pictures become tokens; what a family cannot do is refused with what it can."""

    mode: Literal["single", "tiles", "native"] | None = Field(None, description="by default what the family does")
    side_px: int | None = Field(None, ge=8, description="side of the picture or of a tile, as the encoder has it")
    max_tiles: int | None = Field(None, ge=1, description="most tiles of a picture, beside its overview")
    min_pixels: int | None = Field(None, ge=1, description="native: smaller pictures are enlarged")
    max_pixels: int | None = Field(None, ge=1, description="native: larger pictures are reduced")
    frames: int = Field(8, ge=1, description="frames taken of a video, evenly spread")
    too_many: Literal["skip", "refuse"] = Field("skip", description="a sample whose pictures exceed the context")
    broken: Literal["skip", "refuse"] = Field("skip", description="a sample with a picture that is missing or broken")


class Instructions(_Frozen):
    """Conversations about pictures, from a file in one of the field's formats."""

    instructions: str = Field(description="JSON or JSONL: LLaVA's, ShareGPT's, or OpenAI's messages; told by content")
    images: str | None = Field(None, description="folder of the pictures that the file names")
    set: str | None = Field(None, description="a curated set with the pictures, named by key or URL")
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(1.0, description="its share of the samples")


class Captions(TrainingSet):
    """A curated set whose captions are the answers."""

    prompts: tuple[str, ...] | str = Field(
        ("Describe the image.",), description="what is asked, drawn evenly; a list, or a text file with one a line"
    )


class Lora(_Frozen):
    """Low-rank adapters on the language model instead of its own weights (arXiv 2106.09685)."""

    rank: int = Field(ge=1, description="of the adapters")
    alpha: float = Field(gt=0, description="their scale, over the rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="of what goes into the adapters")


class Stage(_Frozen):
    """A stretch of training: which parts learn, on what, how quickly, for how many steps."""

    train: tuple[Literal["encoder", "connector", "llm", "lora"], ...] = Field(description="the parts that learn")
    data: tuple[Captions | Instructions, ...] = Field((), description="mixed by weight")
    steps: int = Field(ge=1, description="optimiser steps")
    batch_size: int = Field(ge=1, description="samples per step, or packs where `pack` is on")
    lr: LearningRate | Mapping[Role | Literal["lora"], LearningRate] = Field(description="of all parts, or per part")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="to zero by a cosine, or constant and cooled")
    warmup_steps: int | None = Field(None, ge=0, description="linear; by default 3 % of the steps")
    cooldown_steps: int | None = Field(None, ge=0, description="linear to zero, of `constant`; by default a fifth")
    weight_decay: float = Field(0.0, ge=0, le=10, description="of AdamW, on weights of two dimensions or more")
    beta2: float = Field(0.999, gt=0, lt=1, description="of AdamW")
    grad_clip: float = Field(1.0, gt=0, description="longest gradient that a step takes")
    max_tokens: int = Field(2048, ge=8, description="of a sample, or of a pack")
    pack: bool = Field(False, description="several samples in one row, apart from each other, where the family can")
    max_pack_tiles: int | None = Field(None, ge=1, description="most pictures or tiles in a pack")
    accumulate: int = Field(1, ge=1, description="parts that a batch is computed in")
    lora: Lora | None = Field(None, description="adapters; `train` then names lora")
    checkpointing: bool = Field(False, description="activations are computed twice, to save memory")
    objective: Literal["answers", "answers_and_images", "blip2_stage1"] = Field(
        "answers", description="what is learnt: answers; image tokens too (chameleon); contrast, matching and captions"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.train or len(set(self.train)) < len(self.train):
            raise ValueError("train: name the parts that learn, each once: encoder, connector, llm, lora")
        if ("lora" in self.train) != (self.lora is not None):
            raise ValueError("lora: say `train: [..., lora]` and the adapters' rank and alpha together")
        if "lora" in self.train and "llm" in self.train:
            raise ValueError("train: llm and lora exclude each other; adapters stand in for the llm's own weights")
        if isinstance(self.lr, Mapping) and set(self.lr) != set(self.train):
            raise ValueError(f"lr: names {sorted(self.lr)}, but `train` names {sorted(self.train)}")
        if (self.warmup_steps or 0) + (self.cooldown_steps or 0) > self.steps:
            raise ValueError(f"warmup_steps and cooldown_steps are more than the {self.steps} steps of the stage")
        if self.cooldown_steps is not None and self.schedule != "constant":
            raise ValueError("cooldown_steps belongs to `schedule: constant`; a cosine cools down all the way")
        if self.max_pack_tiles is not None and not self.pack:
            raise ValueError("max_pack_tiles belongs to `pack: true`")
        if not self.data:
            raise ValueError("data: name at least one curated set or file of instructions")
        return self


class Described(Pictures):
    """Pictures to describe, by default what a curated set holds out; scored against their captions like COCO's."""

    name: Name = Field("captions", description="names the scores")
    prompt: str = Field("Describe the image.", description="what is asked of each picture")


class Questioned(_Frozen):
    """One evaluation by asking the trained model: benchmark, captions, zeroshot or command."""

    benchmark: str | None = Field(None, description="a benchmark by its name, as `pairmill evaluate --help` lists them")
    annotations: tuple[str, ...] = Field((), description="its official files, or folders of them")
    images: str | None = Field(None, description="the folder of its pictures or videos, where the files hold none")
    captions: Described | None = None
    zeroshot: ZeroShot | None = None
    command: str | None = Field(None, description="a command of your own; {checkpoint} stands for the model's folder")
    results: str | None = Field(None, description="the JSON file of numbers that the command writes")
    name: Name | None = Field(None, description="names the scores of a benchmark or command")

    @field_validator("annotations", mode="before")
    @classmethod
    def _one_file(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(getattr(self, kind) is not None for kind in _ASKED) != 1:
            raise ValueError(f"an entry names one evaluation: {', '.join(_ASKED)}")
        if bool(self.annotations) != (self.benchmark is not None) or (self.images and not self.benchmark):
            raise ValueError("benchmark and annotations go together, and images belongs to them")
        if (self.command is None) != (self.results is None):
            raise ValueError("command and results go together")
        if self.command is not None and "{checkpoint}" not in self.command:
            raise ValueError("command needs {checkpoint} where the folder of the model is to stand")
        if self.name and (self.captions or self.zeroshot):
            raise ValueError("captions and zeroshot carry their own name; say it there")
        if self.zeroshot is not None and self.zeroshot.templates != ZeroShot.model_fields["templates"].default:
            raise ValueError("zeroshot.templates belongs to contrastive models; here the classes themselves are asked")
        return self

    @property
    def label(self) -> str:
        """What its scores stand under."""
        own = self.captions or self.zeroshot
        return own.name if own is not None else self.name or self.benchmark or "command"


class GenerativeSpec(_Frozen):
    """A generative training: one model put together from parts, one stage after the other."""

    name: str = Field(pattern=r"^[a-z0-9_-]+$", description="names the run")
    task: Literal["generative"] = Field(description="what is trained")
    family: str = Field(
        description="llava, llava_next, llava_onevision, perception_lm, internvl, idefics2, idefics3, smolvlm, blip2, "
        "qwen2_vl, qwen2_5_vl, qwen3_vl, mllama, fuyu or chameleon"
    )
    weights: str | None = Field(None, description="a whole model to start from: a folder, or a hub's name")
    encoder: Part | None = Field(None, description="the vision tower; a folder of our own contrastive training too")
    connector: Mapping[str, Any] = Field(default_factory=dict, description="the family's own settings of what joins")
    llm: Part | None = Field(None, description="the language model")
    tokenizer: str | None = Field(None, description="a folder or a hub's name; by default where llm's weights are")
    template: str | None = Field(None, description="a chat template file; by default the tokenizer's or the family's")
    image: Images = Field(default_factory=Images, description="how pictures become tokens")
    stages: tuple[Stage, ...] = Field(description="one after the other")
    seed: int = Field(0, ge=0, lt=2**31, description="of weights, order and prompts")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="bf16 on a GPU, fp32 on a CPU")
    compile: bool = Field(False, description="torch.compile of the layers")
    parallel: Literal["ddp", "fsdp"] = Field("ddp", description="several ranks: all weights on each, or shared out")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a GPU if there is one")
    workers: int = Field(2, ge=1, le=256, description="threads that prepare samples; never changes a result")
    threads: int | None = Field(None, ge=1, description="of torch on a CPU; by default as many as there are cores")
    save_every: int = Field(1000, ge=1, description="steps between checkpoints; never changes a result")
    keep_checkpoints: int = Field(2, ge=1, description="older checkpoints are removed")
    log: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = Field((), description="beside metrics.jsonl")
    output: str | None = Field(None, description="the run's folder; by default data/training/<name>")
    evaluate: tuple[Questioned, ...] = Field((), description="what the trained model is measured by, at the end")

    @model_validator(mode="after")
    def _parts_or_a_whole(self) -> Self:
        if self.weights is not None and (self.encoder, self.llm, dict(self.connector)) != (None, None, {}):
            raise ValueError("weights: brings a whole model; leave out encoder, connector and llm")
        return self

    @field_validator("stages")
    @classmethod
    def _some_stages(cls, value: tuple[Stage, ...]) -> tuple[Stage, ...]:
        if not value:
            raise ValueError("name at least one stage")
        return value

    @property
    def folder(self) -> Path:
        """Where the run writes."""
        return Path(self.output or f"data/training/{self.name}")
