"""What pipelines/training/*.yaml may say of a contrastive task; `generative.py` beside says the other."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from schemas.towers import Lock, Phase, checked_phases

Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")]
PLACES = ("folder", "table", "webdataset", "parquet", "set")
KINDS = ("zeroshot", "retrieval", "linear_probe", "command")
_MOST_WARMUP_STEPS = 500
_BESIDE = {
    "name", "model", "device", "workers", "cache_gb", "threads", "parallel", "save_every", "keep_checkpoints", "log",
    "output", "evaluate", "evaluate_every", "export",
}  # fmt: skip


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TrainingSet(_Frozen):
    """A curated set to train on. Rows held out are left out."""

    set: str = Field(description="folder of a curated set, one version of it (folder@version), or a glob of folders")
    weight: Weight = Field(1.0, description="its share of the samples, against the other entries' weights")
    captions: Mapping[str, Weight] = Field(
        default_factory=dict, description="text columns and how often each is taken; else the shards' own caption"
    )

    @field_validator("captions", mode="before")
    @classmethod
    def _one_column(cls, value: Any) -> Any:
        return {value: 1.0} if isinstance(value, str) else value


class Pictures(_Frozen):
    """Pictures to evaluate on, with labels or captions; it lies in one place of five kinds."""

    folder: str | None = Field(
        None, description="a folder: one sub-folder of pictures per class, or pictures with a .txt of captions beside"
    )
    table: str | None = Field(None, description="a CSV with the columns file (relative to it) and label or caption")
    webdataset: str | None = Field(
        None, description="tars, by path or glob, whose samples have a picture and cls, txt (a caption a line) or json"
    )
    parquet: str | None = Field(None, description="Parquet files, by path or glob, with pictures as bytes")
    set: str | None = Field(None, description="folder of a curated set, or one version of it (folder@version)")
    shards: Literal["holdout", "training"] = Field("holdout", description="which shards of a curated set are read")
    image_column: str = Field("image", description="column of a Parquet file with the pictures")
    label_column: str | None = Field(None, description="column or field of json with the label; else label, or .cls")
    caption_column: str | None = Field(
        None, description="column or field of json with a caption or a list of them; else caption, or .txt"
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if sum(getattr(self, kind) is not None for kind in PLACES) != 1:
            raise ValueError(f"name the pictures by one of {', '.join(PLACES)}")
        return self

    @property
    def place(self) -> str:
        """Where the pictures lie."""
        return next(str(getattr(self, kind)) for kind in PLACES if getattr(self, kind) is not None)


class ZeroShot(Pictures):
    """Zero-shot classification of labelled pictures; its scores stand under its name."""

    name: Name = Field("zeroshot", description="names the scores")
    classes: tuple[str, ...] | str | None = Field(
        None, description="names of the classes in the order of their sorted labels, a text file of them, or imagenet"
    )
    templates: tuple[str, ...] | str = Field(
        "a photo of a {}.",
        description="sentences with {} where the class's name stands, a text file of them, or open_clip's own: "
        "openai (80), simple (7)",
    )


class Retrieval(Pictures):
    """Retrieval of pictures by captions and of captions by pictures: recall at 1, 5 and 10, both ways."""

    name: Name = Field("retrieval", description="names the scores")


class LinearProbe(_Frozen):
    """Classification by logistic regression on the frozen picture tower."""

    name: Name = Field("linear_probe", description="names the scores")
    train: Pictures = Field(description="labelled pictures to fit on; a fifth of them chooses the regularisation")
    test: Pictures = Field(description="labelled pictures to score on")


class Evaluation(_Frozen):
    """One evaluation of the trained model, named by its kind: zeroshot, retrieval, linear_probe or command."""

    zeroshot: ZeroShot | None = None
    retrieval: Retrieval | None = None
    linear_probe: LinearProbe | None = None
    command: str | None = Field(None, description="a command of your own; {checkpoint} stands for the model's folder")
    results: str | None = Field(None, description="the JSON file of numbers that the command writes")
    name: Name | None = Field(None, description="names the scores of a command; the others carry their own")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(getattr(self, kind) is not None for kind in KINDS) != 1:
            raise ValueError(f"an entry names one evaluation: {', '.join(KINDS)}")
        if (self.command is None) != (self.results is None) or (self.name and self.command is None):
            raise ValueError("command and results go together, and name belongs to them alone")
        if self.command is not None and "{checkpoint}" not in self.command:
            raise ValueError("command needs {checkpoint} where the folder of the model is to stand")
        return self

    @property
    def kind(self) -> str:
        """Which evaluation it is."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def label(self) -> str:
        """What its scores stand under."""
        return str(getattr(self, self.kind).name) if self.command is None else self.name or "command"


class TrainingSpec(_Frozen):
    """A contrastive training: two towers, one data mixture, one schedule. Paths are relative to the working folder."""

    name: str = Field(pattern=r"^[a-z0-9_-]+$", description="names the run")
    task: Literal["contrastive"] = Field(description="what is trained")
    data: tuple[TrainingSet, ...] = Field(description="curated sets, mixed by weight")
    model: str = Field(description="open_clip's name of a model, or a path to a model JSON")
    pretrained: str | None = Field(None, description="open_clip's tag of weights to start from, or a model's folder")
    lock: Lock | None = Field(None, description="towers that keep their weights (LiT): {image: all, text: 2}")
    phases: tuple[Phase, ...] = Field((), description="shorter pictures and captions, or masked patches, until when")
    loss: Literal["clip", "siglip"] = Field("clip", description="clip (InfoNCE) or siglip (pairwise sigmoid)")
    batch_size: int = Field(ge=2, description="pairs per step")
    samples: int = Field(ge=1, description="pairs seen in all; the last step is a full batch too")
    lr: Annotated[float, Field(gt=0, le=1)] = Field(5e-4, description="highest learning rate")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="to zero by a cosine, or constant and cooled")
    warmup_steps: int | None = Field(None, ge=0, description="linear; by default a tenth of all, 500 at most")
    cooldown_steps: int | None = Field(None, ge=0, description="linear to zero, of `constant`; by default a fifth")
    weight_decay: float = Field(0.2, ge=0, le=10, description="of AdamW, on weights of two dimensions or more")
    beta2: float = Field(0.98, gt=0, lt=1, description="of AdamW; 0.95 for batches of 32k and more")
    grad_clip: float = Field(1.0, gt=0, description="longest gradient that a step takes")
    micro_batch: int | None = Field(None, ge=1, description="pairs in memory at once on each rank (GradCache)")
    ema: Annotated[float, Field(gt=0, lt=1)] | None = Field(None, description="decay of averaged weights; 0.9999")
    loss_chunk: int | None = Field(None, ge=1, description="rows of logits at once; saves memory, costs some time")
    shuffle_rows: int = Field(10_000, ge=1, description="shards are read together until they have so many rows")
    seed: int = Field(0, ge=0, lt=2**31, description="of weights, order and captions")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="bf16 autocast on a GPU, fp32 on a CPU")
    compile: bool = Field(False, description="torch.compile per tower: slow to begin, quicker from then on")
    parallel: Literal["ddp", "fsdp"] = Field("ddp", description="several ranks: all weights on each, or shared out")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a GPU if there is one")
    decode: Literal["full", "scaled"] = Field("full", description="scaled: quicker where pictures are much too large")
    workers: int = Field(2, ge=1, le=256, description="threads that decode pictures; never changes a result")
    cache_gb: float = Field(1.0, ge=0, description="memory for decoded pictures; never changes a result")
    threads: int | None = Field(None, ge=1, description="of torch on a CPU; by default as many as there are cores")
    save_every: int = Field(1000, ge=1, description="steps between checkpoints; never changes a result")
    keep_checkpoints: int = Field(2, ge=1, description="older checkpoints are removed")
    log: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = Field((), description="beside metrics.jsonl")
    output: str | None = Field(None, description="the run's folder; by default data/training/<name>")
    evaluate: tuple[Evaluation, ...] = Field((), description="what the trained model is measured by")
    export: tuple[Literal["transformers"], ...] = Field((), description="formats beside open_clip's, in exports/")
    evaluate_every: int | None = Field(None, ge=1, description="steps between evaluations; by default only at the end")

    @field_validator("data")
    @classmethod
    def _some_data(cls, value: tuple[TrainingSet, ...]) -> tuple[TrainingSet, ...]:
        if not value:  # `min_length` would say so of an entry that is refused, too
            raise ValueError("name at least one curated set")
        return value

    @field_validator("phases")
    @classmethod
    def _phases_in_order(cls, value: tuple[Phase, ...]) -> tuple[Phase, ...]:
        return checked_phases(value)

    @model_validator(mode="after")
    def _schedule_within(self) -> "TrainingSpec":
        if self.warmup >= self.steps:
            raise ValueError(f"warmup_steps is {self.warmup}, but samples / batch_size makes {self.steps} steps in all")
        if self.cooldown_steps is not None and self.schedule != "constant":
            raise ValueError("cooldown_steps belongs to `schedule: constant`; a cosine cools down all the way")
        if self.warmup + self.cooldown > self.steps:
            raise ValueError(
                f"warmup_steps and cooldown_steps are {self.warmup} and {self.cooldown}, "
                f"but samples / batch_size makes {self.steps} steps in all"
            )
        return self

    @property
    def steps(self) -> int:
        """Steps in all: enough full batches for `samples`."""
        return math.ceil(self.samples / self.batch_size)

    @property
    def warmup(self) -> int:
        """Steps of linear warm-up."""
        return min(_MOST_WARMUP_STEPS, self.steps // 10) if self.warmup_steps is None else self.warmup_steps

    @property
    def cooldown(self) -> int:
        """Steps of linear cool-down at the end of a constant schedule."""
        if self.schedule != "constant":
            return 0
        return self.steps // 5 if self.cooldown_steps is None else self.cooldown_steps

    @property
    def folder(self) -> Path:
        """Where the run writes."""
        return Path(self.output or f"data/training/{self.name}")

    def identity(self) -> dict[str, Any]:
        """What decides the trained weights, but for the model's configuration and the versions of the data."""
        entries = [{"weight": entry.weight, "captions": dict(entry.captions)} for entry in self.data]
        return self.model_dump(mode="json", exclude=_BESIDE) | {"data": entries}
