"""Comparing sets by training: each training is an ordinary one, goes on where it was stopped, and is like others."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from small_training import KINDS, pairs, picture, spec_of, weights_in, write_set

from schemas.any_training import AnyTraining
from schemas.errors import InputError
from schemas.evaluations import read_scores
from schemas.training import TrainingSpec
from training.compare import Entrant, compare
from training.comparison.compared import Comparison
from training.comparison.terms import terms_of
from training.contrastive import train_contrastive

pytestmark = pytest.mark.usefixtures("one_thread")
SEEDS = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets and labelled pictures."""
    root = tmp_path_factory.mktemp("compare")
    write_set(root / "right", pairs(64))
    write_set(root / "wrong", pairs(48, shuffled=True))
    lines = ["file,label"]
    for number, kind in enumerate(KINDS[::4]):
        picture(*kind, random.Random(number)).save(root / f"{number}.png")
        lines.append(f"{number}.png,{kind[0]}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


def asked(folder: Path, **changes: Any) -> TrainingSpec:
    evaluate = [{"zeroshot": {"name": "colour", "table": str(folder / "labels.csv"), "templates": ["a {} disc"]}}]
    small = {"name": "t", "samples": 60, "batch_size": 16, "warmup_steps": 1, "evaluate": evaluate}
    return spec_of(folder / "right", folder / "unused", **(small | changes))


def compared(folder: Path, spec: AnyTraining | None = None, sets: str = "right wrong", **more: Any) -> Comparison:
    entrants = [Entrant(name, folder / name / "v1.json") for name in sets.split()]
    return compare(entrants, spec or asked(folder), more.pop("seeds", SEEDS), folder / "out", **more)


@pytest.fixture(scope="module")
def done(folder: Path) -> tuple[Comparison, list[str]]:
    said: list[str] = []
    return compared(folder, tell=said.append), said


def test_every_training_is_an_ordinary_one_of_that_set_and_seed(
    folder: Path, done: tuple[Comparison, list[str]], tmp_path: Path
) -> None:
    own = {"seed": 1, "output": str(tmp_path), "data": [{"set": str(folder / "wrong")}]}
    result = train_contrastive(TrainingSpec.model_validate(asked(folder).model_dump(mode="json") | own))
    assert weights_in(folder / "out" / "wrong" / "seed-1") == weights_in(tmp_path)
    assert done[0].sets[1].scores["colour.top1"][1] == result.metrics["colour"]["top1"]


def test_it_tells_what_it_does_and_stores_sizes_repeats_costs_and_verdict(
    folder: Path, done: tuple[Comparison, list[str]]
) -> None:
    comparison, said = done
    assert said[:2] == ["training 1 of 4: right, seed 0", "training 2 of 4: wrong, seed 0"]
    record = json.loads((folder / "out" / "comparison.json").read_text())
    assert record == json.loads(json.dumps(comparison.record()))
    assert (record["steps"], record["samples"], record["seeds"]) == (4, 64, [0, 1])
    assert [(one["name"], one["rows"], one["repeats"]) for one in record["sets"]] == [
        ("right", 64, 1.0), ("wrong", 48, 64 / 48),
    ]  # fmt: skip
    assert all(seconds > 0 for one in record["sets"] for seconds in one["training_s"])
    assert record["sets"][0]["devices"] == ["CPU", "CPU"]
    assert len(record["verdict"]) == 1
    page = (folder / "out" / "comparison.md").read_text()
    assert "| right | v1 | 64 | 1.00 |" in page
    assert "Student's t over 2 seeds, each for itself. Better: where the paired t-test says so (5 %)." in page


def test_the_scores_stand_beside_each_set_for_sql(folder: Path, done: tuple[Comparison, list[str]]) -> None:
    for name in ("right", "wrong"):
        found = {row["training"]: row["value"] for row in read_scores(folder / name) if row["metric"] == "top1"}
        own = done[0].sets[["right", "wrong"].index(name)].scores["colour.top1"]
        assert found.items() >= {f"t-{name}-seed-{seed}": score for seed, score in enumerate(own)}.items()


def test_what_is_finished_is_not_trained_again(folder: Path, done: tuple[Comparison, list[str]]) -> None:
    said: list[str] = []
    again = compared(folder, tell=said.append, progress=lambda name: pytest.fail(name))
    assert again.record() == done[0].record()
    assert said[-1] == "training 4 of 4: wrong, seed 1 is done"
    (folder / "out" / "right" / "seed-1" / "outcome.json").unlink()  # killed just before it was noted
    steps: list[int] = []
    again = compared(folder, progress=lambda name: lambda step, *_: steps.append(step))
    assert (again.record(), steps) == (done[0].record(), [])


def test_a_comparison_that_was_stopped_goes_on_and_comes_to_the_same(
    folder: Path, done: tuple[Comparison, list[str]], tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    def killed_at_two(name: str) -> Any:
        def step(step: int, *_: Any) -> None:
            if (name, step) == ("t-wrong-seed-0", 2):
                raise Killed

        return step

    entrants = [Entrant(name, folder / name / "v1.json") for name in ("right", "wrong")]
    spec = asked(folder, save_every=1)
    with pytest.raises(Killed):
        compare(entrants, spec, 1, tmp_path / "out", progress=killed_at_two)
    assert not (tmp_path / "out" / "comparison.json").exists()
    trained: list[tuple[str, int]] = []
    again = compare(
        entrants, spec, 1, tmp_path / "out", progress=lambda name: lambda step, *_: trained.append((name, step))
    )
    assert trained[0][0] == "t-wrong-seed-0"
    assert trained[0][1] > 1
    assert [one.scores["colour.top1"][0] for one in again.sets] == [
        one.scores["colour.top1"][0] for one in done[0].sets
    ]
    assert again.verdict.sentences[0].startswith("Whether wrong or right is better cannot be told: one seed")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lr": 1e-3}, r"was trained with another lr \(lr: 0\.002 then, 0\.001 now\)"),
        ({"samples": 80}, r"another samples, steps \(samples: 60 then, 80 now; steps: 4 then, 5 now\)"),
        ({"batch_size": 15}, "another batch_size"),
        ({"model": str(Path(__file__).with_name("tiny_vit.json"))}, "another files, model"),
        ({"evaluate": [{"retrieval": {"set": "right", "shards": "training"}}]}, "another evaluate"),
    ],
)
def test_what_was_trained_unequally_is_refused(
    folder: Path, done: tuple[Comparison, list[str]], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        compared(folder, asked(folder, **changes))


def test_other_labels_in_the_same_file_are_other_terms(folder: Path, done: tuple[Comparison, list[str]]) -> None:
    labels = folder / "labels.csv"
    before = labels.read_text()
    labels.write_text(before.replace("0.png,red", "0.png,blue"))
    with pytest.raises(InputError, match="was trained with another files"):
        compared(folder)
    labels.write_text(before)


def test_a_picture_more_in_a_folder_is_other_terms_and_a_folder_that_no_word_means_is_not(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = asked(folder, evaluate=[{"zeroshot": {"folder": str(tmp_path / "pictures")}}])
    (tmp_path / "pictures" / "red").mkdir(parents=True)
    before = terms_of(spec, "cpu")
    (tmp_path / spec.schedule).mkdir()
    monkeypatch.chdir(tmp_path)
    assert terms_of(spec, "cpu") == before
    (tmp_path / "pictures" / "red" / "a.png").write_bytes(b"a picture")
    assert terms_of(spec, "cpu") != before


def test_another_version_of_a_set_is_another_training(folder: Path, done: tuple[Comparison, list[str]]) -> None:
    write_set(folder / "right", pairs(40), version="v2")
    entrants = [Entrant("right", folder / "right" / "v2.json"), Entrant("wrong", folder / "wrong" / "v1.json")]
    with pytest.raises(InputError, match=r"another version \(version: v1 then, v2 now\)"):
        compare(entrants, asked(folder), SEEDS, folder / "out")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 50, "samples": 500}, "wrong/v1.json has 48 rows to train on, fewer than one batch of 50"),
        ({"evaluate": []}, "training t names nothing in `evaluate`"),
        ({"data": [{"set": "a"}, {"set": "b"}]}, "training t mixes 2 sets, and each set is compared alone"),
    ],
)
def test_a_training_that_cannot_be_compared_is_refused_before_anything_is_written(
    folder: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    entrants = [Entrant(name, folder / name / "v1.json") for name in ("right", "wrong")]
    with pytest.raises(InputError, match=words):
        compare(entrants, asked(folder, **changes), 1, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_seeds_and_metrics_that_do_not_exist_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="--seeds 0: must be at least 1"):
        compared(folder, seeds=0)
    with pytest.raises(InputError, match=r"as in colour\.top1; there is no 'color'; did you mean 'colour'"):
        compared(folder, metrics=["color.top1"])
    with pytest.raises(InputError, match=r"--metric colour\.top7: there is no 'colour\.top7'"):
        compared(folder, metrics=["colour.top7"])
