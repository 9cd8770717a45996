"""Scores: exact values, brute force beside the quick way, and a tiny model measured by all evaluations."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_cases import COLOURS, png, saved_model
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import InputError, RunError
from schemas.training import Evaluation
from training.evaluate.linear_probe import best_l2, fit, kept_apart
from training.evaluate.own_command import OwnCommand
from training.evaluate.pictures import embed_pictures, require_finite
from training.evaluate.retrieval import recalls
from training.evaluate.suite import evaluate, evaluate_model, open_tests, table
from training.evaluate.zeroshot import classification, ranked, scores, zeroshot
from training.model import load_model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> Path:
    return saved_model(tmp_path_factory.mktemp("run") / "model")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for colour in COLOURS:
        (folder / colour).mkdir()
        for number in range(5):
            (folder / colour / f"{number}.png").write_bytes(png(colour, number))
            (folder / colour / f"{number}.txt").write_text(f"a {colour} picture\nnumber {number}\n")
    return folder


def of(scores_MN: np.ndarray, owners: list[int]) -> dict[str, float]:
    scores_MN = np.asarray(scores_MN, np.float64)
    return dict(recalls(lambda rows: scores_MN[rows], np.array(owners), scores_MN.shape[1]).metrics)


# ---------------------------------------------------------------- exact values


def test_accuracy_and_mean_per_class_recall_of_known_predictions():
    assert scores(np.array([0, 0, 0, 1, 1]), np.array([0, 0, 0, 0, 1])) == {"top1": 0.8, "mean_per_class_recall": 0.875}
    found = classification(np.array([[0], [0], [0], [1], [1]]), np.array([0, 0, 0, 0, 1]), ["a", "b", "c"])
    assert found.per_class == {"a": {"recall": 0.75, "pictures": 4}, "b": {"recall": 1.0, "pictures": 1}}


def test_top5_counts_the_first_five_and_stands_only_where_there_are_more_classes():
    scores_NK = np.array([[9, 8, 7, 6, 5, 4.0], [9, 8, 7, 6, 5, 4.0]])
    found = classification(ranked(scores_NK), np.array([4, 5]), list("abcdef"))
    assert found.metrics["top5"] == 0.5
    assert "top5" not in classification(ranked(scores_NK[:, :5]), np.array([4, 4]), list("abcde")).metrics


def test_of_equal_classes_the_first_is_taken():
    assert ranked(np.array([[1.0, 2.0, 2.0], [0.0, 0.0, 0.0]])).tolist() == [[1, 2, 0], [0, 1, 2]]


def test_recall_counts_any_caption_of_a_picture_as_the_clip_papers_do():
    found = of([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]], [0, 0, 1, 1])
    assert found["text_to_image_recall@1"] == 0.5
    assert found["text_to_image_recall@5"] == 1.0
    assert found["image_to_text_recall@1"] == 1.0


def test_equal_scores_rank_by_place():
    found = of(np.zeros((20, 20)), list(range(20)))
    for way in ("image_to_text", "text_to_image"):
        assert [found[f"{way}_recall@{k}"] for k in (1, 5, 10)] == [0.05, 0.25, 0.5]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.integers(0, 20), st.integers(0, 10_000))
def test_recall_is_that_of_sorting_everything(images, more, seed):
    draw = np.random.default_rng(seed)
    owners = [*range(images), *draw.integers(0, images, more).tolist()]
    draw.shuffle(owners)
    scores_MN = draw.integers(0, 6, (len(owners), images)).astype(float)  # many are equal
    found = of(scores_MN, owners)
    for k in (1, 5, 10):
        by_text = [owners[m] in np.argsort(-scores_MN[m], kind="stable")[:k] for m in range(len(owners))]
        by_image = [any(owners[m] == n for m in np.argsort(-scores_MN[:, n], kind="stable")[:k]) for n in range(images)]
        assert found[f"text_to_image_recall@{k}"] == pytest.approx(np.mean(by_text))
        assert found[f"image_to_text_recall@{k}"] == pytest.approx(np.mean(by_image))


def test_chunks_of_captions_give_the_same_recall(monkeypatch):
    scores_MN = np.random.default_rng(0).standard_normal((50, 10))
    owners = [m % 10 for m in range(50)]
    whole = of(scores_MN, owners)
    monkeypatch.setattr("training.evaluate.retrieval._CHUNK", 7)
    assert of(scores_MN, owners) == whole


# ---------------------------------------------------------------- linear probe


def test_the_fit_is_where_the_gradient_vanishes():
    draw = np.random.default_rng(0)
    image_ND, labels_N = draw.standard_normal((60, 4)), draw.integers(0, 3, 60)
    weights_KD, bias_K = fit(image_ND, labels_N, 3, 1e-2)
    weights, bias = (torch.tensor(value, requires_grad=True) for value in (weights_KD, bias_K))
    logits = torch.tensor(image_ND) @ weights.T + bias
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels_N)) + 0.5e-2 * (weights**2).sum()
    for gradient in torch.autograd.grad(loss, (weights, bias)):
        assert gradient.abs().max() < 1e-5


def test_noise_asks_for_more_regularisation_than_clear_classes():
    draw = np.random.default_rng(1)
    labels_N = np.repeat([0, 1], 60)
    noisy_ND = draw.standard_normal((120, 40)) + 0.5 * labels_N[:, None] * np.eye(40)[0]
    assert best_l2(noisy_ND, labels_N, 2) > best_l2(noisy_ND, labels_N, 2, tried=(1e-8, 1e-7))
    clear_ND = np.stack([labels_N * 2.0 - 1, draw.standard_normal(120)], 1)
    weights_KD, bias_K = fit(clear_ND, labels_N, 2, best_l2(clear_ND, labels_N, 2))
    assert ((clear_ND @ weights_KD.T + bias_K).argmax(1) == labels_N).all()


def test_a_fifth_of_each_class_is_kept_apart():
    labels_N = np.array([0, 1] * 10 + [2, 2])
    apart_N = kept_apart(labels_N)
    assert np.bincount(labels_N[apart_N]).tolist() == [2, 2, 1]
    assert (np.bincount(labels_N[~apart_N]) > 0).all()


# ---------------------------------------------------------------- a command of one's own

WRITES = "import json, sys; json.dump({'folder': sys.argv[1], 'vqa': {'all': 0.5}, 'n': 3}, open('r.json', 'w'))"


def test_a_command_is_told_the_folder_and_its_numbers_are_scores(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = OwnCommand(f'{sys.executable} -c "{WRITES}" {{checkpoint}}', Path("r.json"))
    assert own.scores(tmp_path / "a model").metrics == {"vqa.all": 0.5, "n": 3.0}
    assert json.loads(Path("r.json").read_text())["folder"] == str(tmp_path / "a model")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise SystemExit('no such data')", "ended with code 1; it said: no such data"),
        ("pass", "ended, but has not written r.json"),
        ("open('r.json', 'w').write('[1]')", "need an object of numbers"),
        ("open('r.json', 'w').write('{')", "cannot be read as JSON"),
        ("open('r.json', 'w').write('{\\\"a\\\": NaN}')", "a is nan, which is no score"),
    ],
)
def test_a_command_that_fails_is_a_sentence(tmp_path, monkeypatch, code, words):
    monkeypatch.chdir(tmp_path)
    Path("r.json").write_text('{"of": 1}')  # of an earlier run: it must not be taken for this one's
    with pytest.raises(RunError, match=words):
        OwnCommand(f'{sys.executable} -c "{code}" {{checkpoint}}', Path("r.json")).scores(tmp_path)


def test_a_command_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(RunError, match="cannot be started"):
        OwnCommand("no_such_program {checkpoint}", tmp_path / "r.json").scores(tmp_path)


# ---------------------------------------------------------------- a model


def test_all_evaluations_measure_a_model_the_same_way_twice(model_folder, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = [
        {"zeroshot": {"folder": str(pictures), "templates": "a {} picture"}},
        {"retrieval": {"folder": str(pictures), "name": "captions"}},
        {"linear_probe": {"train": {"folder": str(pictures)}, "test": {"folder": str(pictures)}}},
        {"command": f'{sys.executable} -c "{WRITES}" {{checkpoint}}', "results": "r.json", "name": "mine"},
    ]
    tests = open_tests([Evaluation.model_validate(one) for one in asked])
    told: list[str] = []
    found = evaluate(tests, model_folder, "cpu", tell=told.append)
    assert told == list(found) == ["zeroshot", "captions", "linear_probe", "mine"]
    assert found["zeroshot"]["per_class"]["red"]["pictures"] == 5
    assert found["linear_probe"]["top1"] > 0.9  # colours are told apart even by random weights
    assert set(found["captions"]) == {
        f"{way}_recall@{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)
    }
    assert found["mine"] == {"vqa.all": 0.5, "n": 3.0}
    assert json.loads(json.dumps(found)) == found
    assert evaluate(tests[:3], model_folder, "cpu") == {name: found[name] for name in list(found)[:3]}
    assert ("mine", "vqa.all", "0.5000") in table(found)


def test_a_model_that_trains_is_measured_and_goes_on_as_if_it_had_not_been(model_folder, pictures):
    tests = open_tests([Evaluation.model_validate({"retrieval": {"folder": str(pictures)}})])
    model = load_model(model_folder, "cpu")
    model.network.train()
    random, statistics = torch.get_rng_state(), {k: v.clone() for k, v in model.network.state_dict().items()}
    assert evaluate_model(tests, model, model_folder) == evaluate(tests, model_folder, "cpu")
    assert model.network.training
    assert model.network.visual.bn1.training
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, statistics[name]) for name, value in model.network.state_dict().items())


def test_zero_shot_takes_pixels_bytes_and_files(model_folder, pictures):
    from schemas.pixels import decode

    files = sorted(pictures.glob("*/*.png"))
    labels = [list(COLOURS).index(file.parent.name) for file in files]
    given = [files, [str(f) for f in files], [f.read_bytes() for f in files], [decode(f.read_bytes()) for f in files]]
    found = [zeroshot(model_folder, pictures, labels, list(COLOURS)) for pictures in given]
    assert all(one == found[0] for one in found)


def test_a_picture_that_cannot_be_decoded_is_named(model_folder, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    model = load_model(model_folder, "cpu")
    with pytest.raises(InputError, match=r"zeroshot: picture .*bad\.png cannot be read"):
        embed_pictures(model, [tmp_path / "bad.png"], "zeroshot")
    with pytest.raises(InputError, match=r"gone\.png cannot be read"):
        embed_pictures(model, [tmp_path / "gone.png"], "zeroshot")


def test_vectors_that_are_not_finite_are_refused_instead_of_scoring_well():
    with pytest.raises(RunError, match="vectors of 1 of 2 pictures are not finite"):
        require_finite(np.array([[1.0], [np.nan]]), "pictures")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ([{"zeroshot": {"folder": "x"}}, {"zeroshot": {"folder": "y"}}], "two evaluations are called 'zeroshot'"),
        ([{"retrieval": {"folder": "{plain}"}}], r"retrieval retrieval: 1 of 1 pictures in .* have no caption"),
        ([{"linear_probe": {"train": {"folder": "{red}"}, "test": {"folder": "{all}"}}}], "there is no label 'blue'"),
        ([{"linear_probe": {"train": {"folder": "{red}"}, "test": {"folder": "{red}"}}}], "two classes are needed"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_when_it_is_opened(asked, words, pictures, tmp_path):
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "0.png").write_bytes(png("red"))
    (tmp_path / "red" / "red").mkdir(parents=True)
    for number in range(3):
        (tmp_path / "red" / "red" / f"{number}.png").write_bytes(png("red", number))
    text = json.dumps(asked)
    for name, path in (("plain", tmp_path / "plain"), ("red", tmp_path / "red"), ("all", pictures)):
        text = text.replace(f"{{{name}}}", str(path))
    with pytest.raises(InputError, match=words):
        open_tests([Evaluation.model_validate(one) for one in json.loads(text)])


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, "an entry names one evaluation: zeroshot, retrieval, linear_probe, command"),
        ({"zeroshot": {"folder": "a"}, "retrieval": {"folder": "a"}}, "an entry names one evaluation"),
        ({"command": "run {checkpoint}"}, "command and results go together"),
        ({"command": "run it", "results": "r.json"}, "command needs {checkpoint}"),
        ({"zeroshot": {"folder": "a"}, "name": "b"}, "name belongs to them alone"),
        ({"linear_probe": {"train": {}, "test": {"folder": "a"}}}, "name the pictures by one of folder, table"),
    ],
)
def test_an_entry_that_names_no_evaluation_is_refused(asked, words):
    with pytest.raises(ValueError, match=words):
        Evaluation.model_validate(asked)
