"""Every benchmark: its files, its questions, predictions that do not fit, and the command."""

import contextlib
import copy
import json
import os
import pickle
import random
from pathlib import Path

import pytest
from benchmark_cases import CASES, COCO, PEOPLE, choice_row, refcoco, scores, write
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as some

from flows.command_line import cli
from flows.commands import evaluating
from schemas.errors import InputError
from training.evaluate.benchmark import Question, benchmark_names, load_benchmark, score_predictions
from training.evaluate.tally import Judged, interval, tally


@pytest.fixture(params=sorted(CASES))
def case(request, tmp_path):
    """A benchmark's name, its case, and a folder with its annotations."""
    folder = tmp_path / "annotations"
    folder.mkdir()
    for name, content in CASES[request.param].files.items():
        write(folder / name, content)
    return request.param, CASES[request.param], folder


def entries(name: str, case, folder) -> list[dict]:
    benchmark = load_benchmark(name)
    return [benchmark.entry(question, case.right(question.id)) for question in benchmark.questions([folder])]


def test_every_benchmark_has_a_case_and_a_line_of_help():
    assert set(benchmark_names()) == {*CASES, "retrieval"}
    for name in benchmark_names():
        assert f"\n{name} " in evaluating._FORMATS
        assert "`--official`" in load_benchmark(name).__doc__.replace("\n", " ")


def test_what_a_model_says_right_to_the_questions_scores_all(case, tmp_path):
    name, known, folder = case
    said = write(tmp_path / "said.json", entries(name, known, folder))
    found = score_predictions(name, [folder], said).record()
    assert found[known.metric] == (10.0 if name == "coco_captions" else 1.0)
    assert found.get("unparsed", 0) == 0


def test_questions_have_pictures_words_and_ids_that_differ(case):
    name, _, folder = case
    asked = load_benchmark(name).questions([folder])
    assert len({question.id for question in asked}) == len(asked) > 1
    for question in asked:
        assert isinstance(question, Question)
        assert question.prompt
        assert all(option in question.prompt for option in question.options) or "Hint: …" in question.prompt
        assert question.pictures or name == "scienceqa"
        for picture in question.pictures:
            stored = picture if isinstance(picture, bytes) else picture.read() if hasattr(picture, "read") else None
            assert stored is None or stored.startswith(b"\x89PNG")


def test_the_order_of_predictions_changes_no_bit(case, tmp_path):
    name, known, folder = case
    said = entries(name, known, folder)
    first = score_predictions(name, [folder], write(tmp_path / "a.json", said)).record()
    again = score_predictions(name, [folder], write(tmp_path / "b.json", said[::-1])).record()
    lines = (
        score_predictions(name, [folder], write(tmp_path / "c.jsonl", said)).record() if name != "chartqa" else first
    )
    assert first == again == lines


def test_predictions_that_are_missing_twice_there_or_not_asked_are_refused(case, tmp_path):
    name, known, folder = case
    said = entries(name, known, folder)
    key = next(iter(said[0]))
    strange = said[0] | {key: 10_000_077}
    for content, words in (
        (said[1:], "no prediction of "),
        ([*said, strange], "a prediction of '10000077'"),
        ([*said, said[0]], "which is not asked" if name == "chartqa" else "come twice"),
        ([], "are empty" if name != "chartqa" else "no prediction of"),
        ([{}], "has no"),
        ("text", "expected"),
    ):
        with pytest.raises(InputError, match=words):
            score_predictions(name, [folder], write(tmp_path / "said.json", content))


def test_a_spreadsheet_is_refused_with_what_to_do(tmp_path):
    write(tmp_path / "dev.tsv", [choice_row(1, "A")])
    (tmp_path / "said.xlsx").write_bytes(b"PK")
    with pytest.raises(InputError, match="save it as TSV or CSV"):
        score_predictions("mmbench", [tmp_path / "dev.tsv"], tmp_path / "said.xlsx")


def test_an_object_that_has_an_id_twice_is_refused(tmp_path):
    path = tmp_path / "said.json"
    path.write_text('{"validation_Art_1": "A", "validation_Art_1": "B"}')
    write(tmp_path / "Art.parquet", CASES["mmmu"].files["Art.parquet"])
    with pytest.raises(InputError, match="'validation_Art_1' twice"):
        score_predictions("mmmu", [tmp_path / "Art.parquet"], path)


@pytest.mark.parametrize("content", [[], {}, [1], {"data": 3}, [{"a": 1}], {"a": {"b": 1}}, "text", 7])
def test_annotations_of_another_kind_are_refused_with_what_is_expected(tmp_path, content):
    said = write(tmp_path / "said.json", {"1": "a"})
    for name in benchmark_names():
        path = write(tmp_path / ("dev.json" if name == "mmbench" else "annotations.json"), content)
        with pytest.raises(InputError) as refused:
            score_predictions(name, [path], said)
        assert str(path) in str(refused.value)


def test_files_that_are_not_there_or_cannot_be_read_are_refused(tmp_path):
    said = write(tmp_path / "said.json", {"1": "a"})
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1")
    for path, words in (
        (tmp_path / "none.json", "there is no such file"),
        (broken, "cannot be read as parquet"),
        (write(tmp_path / "x.txt", "{"), "cannot be read as JSON"),
    ):
        with pytest.raises(InputError, match=words):
            score_predictions("mmmu", [path], said)


_ODD = some.sampled_from([None, True, -1, 7, 0.5, 10**400, "", "x", "5", [], {}, [1], {"a": 1}, ["a"], [[]], [None]])


def places_in(value: object, here: tuple = ()) -> list[tuple]:
    """The place of everything inside a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in inside for place in ((*here, key), *places_in(item, (*here, key)))]


def put(value: object, place: tuple, odd: object) -> None:
    for key in place[:-1]:
        value = value[key]  # type: ignore[index]
    value[place[-1]] = odd  # type: ignore[index]


def as_json(content: object) -> object:
    """What a table would hold, without the bytes of pictures."""
    content = copy.deepcopy(content)
    for row in content if isinstance(content, list) else ():
        for name in [name for name, item in row.items() if isinstance(item, dict) and "bytes" in item]:
            del row[name]
    return content


@settings(max_examples=300, deadline=None)
@given(some.sampled_from(sorted(CASES)), some.data())
def test_a_value_that_is_odd_anywhere_is_scored_or_refused_with_a_sentence(tmp_path_factory, name, data):
    folder = tmp_path_factory.mktemp("odd")
    (folder / "annotations").mkdir()
    known, benchmark = CASES[name], load_benchmark(name)
    files = {}
    for file, content in known.files.items():
        path = folder / "annotations" / (file if file.endswith(".p") else f"{Path(file).stem}.json")
        files[write(path, as_json(content))] = as_json(content)
    said = folder / "said.json"
    files[said] = [
        benchmark.entry(question, known.right(question.id))
        for question in benchmark.questions([folder / "annotations"])
    ]
    path = data.draw(some.sampled_from(sorted(files)))
    put(files[path], data.draw(some.sampled_from(places_in(files[path]))), data.draw(_ODD))
    for path, content in files.items():
        write(path, content)
    with contextlib.suppress(InputError):
        found = score_predictions(name, [folder / "annotations"], said).record()
        assert 0.0 <= found[known.metric] <= 10.0 + 1e-9
    with contextlib.suppress(InputError):
        benchmark.questions([folder / "annotations"])


# ---------------------------------------------------------------- pickles, and files that name each other


def test_a_pickle_that_names_a_function_is_refused_and_nothing_runs(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    write(tmp_path / "instances.json", refcoco()["instances.json"])
    for content in (Evil(), [Evil()], [{"split": Evil()}]):
        path = tmp_path / "refs(unc).p"
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(InputError, match="mkdir, and only plain values are read"):
            score_predictions("refcoco", [path], write(tmp_path / "said.json", []))
    assert not (tmp_path / "ran").exists()


def test_the_box_file_beside_the_pickle_is_taken_unless_another_is_named(tmp_path):
    for name, content in refcoco().items():
        write(tmp_path / name, content)
    said = write(tmp_path / "said.json", [{"sent_id": n, "bbox": [0, 0, 10, 10]} for n in range(5)])
    both = [tmp_path / name for name in refcoco()]
    assert score_predictions("refcoco", both[:1], said) == score_predictions("refcoco", both, said)


def test_karpathys_file_gives_the_test_split(tmp_path):
    images = [
        {"cocoid": row["image_id"], "filename": "x.jpg", "split": "test", "sentences": [{"raw": row["caption"]}]}
        for row in COCO["annotations"]
    ]
    images.append(images[0] | {"cocoid": 3, "split": "train"})
    said = [{"image_id": row["image_id"], "caption": row["caption"]} for row in COCO["annotations"]]
    assert scores(tmp_path, "coco_captions", {"images": images}, said)["CIDEr"] == 10.0


def test_science_questions_are_scored_by_the_official_numbers_too(tmp_path):
    said = {"results": {"1": 1, "2": 0}, "acc": 0.5}
    found = scores(tmp_path, "scienceqa", CASES["scienceqa"].files, said, files=True)
    assert (found["accuracy"], found["accuracy_img"]) == (0.5, 1.0)
    assert found["per_subject"]["social science"] == {"accuracy": 0.0, "questions": 1}
    assert {name: part["questions"] for name, part in found["per_context"].items()} == {"image": 1, "text": 1}
    assert list(found["per_grade"]) == ["1 to 6", "7 to 12"]


def test_diagrams_in_their_official_files_keep_to_the_test_split(tmp_path):
    asked = {"Which?": {"questionId": "0.png-0", "answerTexts": ["a", "b"], "correctAnswer": 1}}
    other = {"Which?": {"questionId": "1.png-0", "answerTexts": ["a", "b"], "correctAnswer": 0}}
    files = {
        "0.png.json": {"imageName": "0.png", "questions": asked},
        "1.png.json": {"imageName": "1.png", "questions": other},
        "ai2d_test_ids.csv": "0\n",
    }
    assert scores(tmp_path, "ai2d", files, {"0.png-0": "B"}, files=True)["questions"] == 1


def test_videos_in_the_official_template_are_read_on_both_sides(tmp_path):
    row = {"question": "What?", "options": ["A. a", "B. b", "C. c", "D. d"], "answer": "C", "task_type": "counting"}
    video = {"video_id": "001", "duration": "long", "domain": "d", "sub_category": "s"}
    known = [video | {"questions": [row | {"question_id": f"001-{n}"} for n in (1, 2)]}]
    said = [video | {"questions": [row | {"question_id": f"001-{n}", "response": "CA"[n - 1]} for n in (1, 2)]}]
    found = scores(tmp_path, "videomme", known, said)
    assert found["accuracy"] == 0.5  # the right answer in the template is not taken for the model's
    assert found["per_duration"] == {"long": {"accuracy": 0.5, "questions": 2}}


# ---------------------------------------------------------------- the command


def pairmill(*words: str):
    return CliRunner().invoke(cli, ["evaluate", *words])


def test_the_command_takes_files_one_by_one_and_prints_one_object_last(case, tmp_path):
    name, known, folder = case
    said = write(tmp_path / "said.json", entries(name, known, folder))
    files = [word for path in sorted(folder.iterdir()) for word in ("--annotations", str(path))]
    done = pairmill("--benchmark", name, *files, "--predictions", str(said), "--json")
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout.splitlines()[-1])
    assert record == {"benchmark": name, "metrics": score_predictions(name, [folder], said).record()}


def test_the_command_prints_a_table_of_each_kind_of_part(tmp_path):
    row = {"question_id": 1, "answers": PEOPLE, "answer_type": "other"}
    rows = {"annotations": [row, row | {"question_id": 2, "answer_type": "number"}]}
    known = write(tmp_path / "known.json", rows)
    said = write(tmp_path / "said.json", [{"question_id": 1, "answer": "dog"}, {"question_id": 2, "answer": ""}])
    done = pairmill("--benchmark", "vqav2", "--annotations", str(known), "--predictions", str(said))
    lines = [line.split() for line in done.stdout.splitlines()]
    for line in (["accuracy:", "0.5000"], ["unparsed:", "1"], ["answer_type", "accuracy", "questions"]):
        assert line in lines
    assert ["number", "0.0000", "1"] in lines


def test_a_benchmark_that_is_misspelt_is_answered_with_the_nearest():
    done = pairmill("--benchmark", "vqa2", "--annotations", "a", "--predictions", "b")
    assert done.exit_code == 2
    assert "there is no 'vqa2'; did you mean 'vqav2'? there are: ai2d, chartqa" in done.stderr


# ---------------------------------------------------------------- means and intervals


def test_an_interval_holds_the_mean_and_is_the_same_whatever_the_order():
    draw = random.Random(1)
    values = [draw.random() for _ in range(500)]
    low, high = interval([values])
    middle = sum(values) / 500
    assert low < middle < high
    assert high - low == pytest.approx(2 * 1.96 * (1 / 12 / 500) ** 0.5, rel=0.15)  # of a uniform draw
    assert interval([values[::-1]]) == (low, high)
    assert interval([[1.0] * 9]) == (1.0, 1.0)


@settings(max_examples=30, deadline=None)
@given(some.lists(some.floats(0, 1), min_size=1, max_size=30), some.randoms())
def test_a_mean_is_the_same_to_the_bit_whatever_the_order(values, draw):
    mixed = draw.sample(values, len(values))
    first, again = (tally([Judged(value) for value in order], "score").record() for order in (values, mixed))
    assert first == again
    assert first["score_low"] <= first["score"] + 1e-9
    assert first["score_high"] >= first["score"] - 1e-9


def test_a_question_about_a_part_of_a_video_says_which(tmp_path):
    row = {"video": "v.mp4", "question": "?", "candidates": ["a", "b"], "answer": "a"}
    write(tmp_path / "action_sequence.json", [row, row | {"start": 1.5, "end": 9}])
    asked = load_benchmark("mvbench").questions([tmp_path])
    assert [question.clip_s for question in asked] == [None, (1.5, 9.0)]


def test_rows_of_the_table_of_choices_refer_to_each_others_pictures(tmp_path):
    write(tmp_path / "dev.tsv", [choice_row(1, "A"), choice_row(1_000_001, "B")])
    first, copy = load_benchmark("mmbench").questions([tmp_path / "dev.tsv"])
    assert first.pictures == copy.pictures
    assert first.prompt.endswith(
        "A. w\nB. x\nC. y\nD. z\nAnswer with the option's letter from the given choices directly."
    )
