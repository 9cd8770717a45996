"""What a training specification may say, and the sentences for what it may not."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from schemas.any_training import read_training
from schemas.errors import SpecError
from schemas.reading import read_yaml
from schemas.training import TrainingSpec

SMALLEST: dict[str, Any] = {
    "name": "small", "task": "contrastive", "data": [{"set": "data/demo/curated/demo"}], "model": "ViT-B-32",
    "batch_size": 128, "samples": 51_200,
}  # fmt: skip


def spec(**changes: Any) -> TrainingSpec:
    return TrainingSpec.model_validate(SMALLEST | changes)


PIPELINES = Path(__file__).parent.parent / "pipelines"


@pytest.mark.parametrize("path", sorted((PIPELINES / "training").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_specification_that_is_shipped_can_be_read_and_has_its_model(path: Path) -> None:
    read = read_training(path)
    assert read.name == path.stem
    if isinstance(read, TrainingSpec):
        assert (PIPELINES.parent / read.model).is_file()


def test_the_specification_of_the_documents_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(
        "name: demo_clip\ntask: contrastive\nmodel: ViT-B-32\nloss: clip\nbatch_size: 4096\nsamples: 12_800_000\n"
        "data:\n  - {set: data/demo/curated/demo, weight: 1.0, captions: {caption: 0.3, vlm_caption: 0.7}}\n"
        "lr: 1e-3\n"
    )
    read = read_yaml(path, TrainingSpec).spec
    assert (read.steps, read.warmup, read.lr) == (3125, 312, 1e-3)
    assert read.data[0].captions == {"caption": 0.3, "vlm_caption": 0.7}
    assert read.folder == Path("data/training/demo_clip")


def test_steps_are_enough_for_all_samples() -> None:
    assert spec(samples=129).steps == 2
    assert spec(samples=128).steps == 1


def test_warm_up_is_a_tenth_and_500_steps_at_most_unless_said() -> None:
    assert spec().warmup == 40
    assert spec(samples=128_000_000).warmup == 500
    assert spec(warmup_steps=0).warmup == 0


def test_a_constant_schedule_cools_down_over_a_fifth_unless_said() -> None:
    assert spec(schedule="constant").cooldown == 80
    assert spec(schedule="constant", cooldown_steps=0).cooldown == 0
    assert spec().cooldown == 0


def test_one_caption_column_may_be_named_by_itself() -> None:
    assert spec(data=[{"set": "a", "captions": "alt"}]).data[0].captions == {"alt": 1.0}


def test_what_never_changes_a_result_is_no_part_of_the_identity() -> None:
    beside = {
        "name": "other", "workers": 7, "cache_gb": 0, "threads": 1, "save_every": 5, "output": "x", "device": "cpu",
        "keep_checkpoints": 9, "log": ["tensorboard"], "parallel": "fsdp", "evaluate_every": 3,
        "data": [{"set": "elsewhere"}],
    }  # fmt: skip
    assert spec(**beside).identity() == spec().identity()


@pytest.mark.parametrize(
    "change",
    [{"lr": 1e-3}, {"seed": 1}, {"batch_size": 64}, {"samples": 1280}, {"loss": "siglip"}, {"warmup_steps": 3},
     {"shuffle_rows": 5}, {"weight_decay": 0.0}, {"beta2": 0.9}, {"precision": "bf16"}, {"pretrained": "openai"},
     {"micro_batch": 16}, {"ema": 0.99}, {"schedule": "constant"}, {"compile": True},
     {"data": [{"set": "a", "captions": "alt"}]}, {"data": [{"set": "a"}, {"set": "b"}]}],
)  # fmt: skip
def test_what_changes_a_result_changes_the_identity(change: dict[str, Any]) -> None:
    assert spec(**change).identity() != spec().identity()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task": "classify"}, "task: must be 'contrastive' or 'generative'"),
        ({"batchsize": 4}, "there is no 'batchsize'; did you mean 'batch_size'"),
        ({"data": []}, "data: name at least one curated set"),
        ({"data": [{"set": "a", "wieght": 2}]}, r"data\[0\]\.wieght: there is no 'wieght'; did you mean 'weight'"),
        ({"data": [{"set": "a", "weight": 0}]}, r"^\S+ data\[0\]\.weight: [^\n]*0[^\n]*$"),
        ({"batch_size": 1}, "batch_size: .*2"),
        ({"samples": 0}, "samples: "),
        ({"loss": "triplet"}, "loss: .*'clip' or 'siglip'"),
        ({"warmup_steps": 400}, "warmup_steps is 400, but samples / batch_size makes 400 steps in all"),
        ({"cooldown_steps": 5}, "cooldown_steps belongs to `schedule: constant`"),
        ({"schedule": "constant", "cooldown_steps": 390}, "warmup_steps and cooldown_steps are 40 and 390, but .* 400"),
        ({"log": ["tensorbord"]}, r"log\[0\]: .*'tensorboard', 'wandb' or 'mlflow'"),
        ({"ema": 1.0}, "ema: must be less than 1"),
        ({"name": "Demo CLIP"}, "name: "),
        ({"evaluate": [{"retrival": {}}]}, r"\[0\]\.retrival: there is no 'retrival'.*did you mean 'retrieval'"),
        ({"evaluate": [{"zeroshot": {}}]}, "name the pictures by one of folder, table, webdataset, parquet, set"),
        ({"evaluate": [{"zeroshot": {"folder": "a", "table": "b"}}]}, "name the pictures by one of folder, table"),
    ],
)
def test_what_is_wrong_is_said_with_its_place_and_what_is_allowed(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    import yaml

    path = tmp_path / "t.yaml"
    path.write_text(yaml.safe_dump(SMALLEST | change))
    with pytest.raises(SpecError, match=words):
        read_training(path)


def test_a_specification_is_not_changed_after_it_was_read() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        spec().lr = 1.0  # type: ignore[misc]
