"""What a training leaves in its folder, and where its data may lie."""

from pathlib import Path

import fsspec
import pytest
from small_training import MODEL, VIT, pairs, spec_of, weights_in, write_set

from schemas.errors import InputError
from training.contrastive import train_contrastive


def test_a_set_behind_a_url_trains_to_the_weights_of_the_same_set_on_disk(tmp_path: Path) -> None:
    curated = write_set(tmp_path / "set", pairs(40))
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "set"), "/sets/shapes", recursive=True)
    small = {"model": VIT, "samples": 64, "warmup_steps": 0}
    here = train_contrastive(spec_of(curated, tmp_path / "here", **small))
    behind = {"data": [{"set": "memory:///sets/shapes"}]}
    there = train_contrastive(spec_of(curated, tmp_path / "there", **small, **behind))
    assert weights_in(here.folder) == weights_in(there.folder)


def test_a_finished_model_is_written_for_transformers_too(tmp_path: Path) -> None:
    from transformers import CLIPModel

    curated = write_set(tmp_path / "set", pairs(40))
    spec = spec_of(curated, tmp_path / "run", model=VIT, samples=64, warmup_steps=0, export=["transformers"])
    result = train_contrastive(spec)
    assert CLIPModel.from_pretrained(result.folder / "exports" / "transformers").num_parameters() > 1000


def test_a_model_that_transformers_cannot_express_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    curated = write_set(tmp_path / "set", pairs(40))
    spec = spec_of(curated, tmp_path / "run", model=MODEL, export=["transformers"])
    with pytest.raises(InputError, match="transformers"):
        train_contrastive(spec)
    assert not (tmp_path / "run").exists()
