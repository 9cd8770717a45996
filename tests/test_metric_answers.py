"""Metrics of short answers: VQAv2, ANLS, ChartQA; each value is one that the official code was run for."""

import pytest
from benchmark_cases import scores
from hypothesis import given, settings
from hypothesis import strategies as some

from training.evaluate.benchmarks.chartqa import relaxed
from training.evaluate.measures.anls import anls
from training.evaluate.measures.edit_distance import edit_distance
from training.evaluate.measures.vqa_answer import normal, vqa_accuracy

# ---------------------------------------------------------------- VQAv2


@pytest.mark.parametrize(("agree", "score"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (9, 1.0), (10, 1.0)])
@pytest.mark.parametrize("official", [False, True])
def test_an_answer_scores_by_how_many_of_ten_people_agree(agree, score, official):
    people = ["dog"] * agree + [f"other {n}" for n in range(10 - agree)]
    assert vqa_accuracy("dog", people, official=official) == score


@pytest.mark.parametrize(
    ("answer", "right", "agree", "score"),
    [
        ("The Dog.", "dog", 9, 1.0),
        ("two", "2", 5, 1.0),
        ("none", "0", 4, 1.0),
        ("100,978", "100978", 3, 0.9),
        ("dont know", "don't know", 2, 0.6),
        ("red/blue", "red blue", 4, 1.0),
        ("2:50 pm", "2:50 pm", 3, 0.9),
        ("dog\n", "dog", 4, 1.0),
    ],
)
@pytest.mark.parametrize("official", [False, True])
def test_answers_are_compared_in_normal_form(answer, right, agree, score, official):
    people = [right] * agree + [f"other {n}" for n in range(10 - agree)]
    assert vqa_accuracy(answer, people, official=official) == score


def test_where_all_people_agree_only_official_compares_letter_by_letter():
    assert vqa_accuracy("The Dog.", ["dog"] * 10, official=True) == 0.0
    assert vqa_accuracy("The Dog.", ["dog"] * 10, official=False) == 1.0


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("u.s.", "us"), ("3.", "3"), (".5", ".5"), ("1.5", "1.5"), ("t-shirt", "t shirt"), ("a, b", "b"),
        ("cat's", "cat's"), ("50%", "50%"), ("couldn'tve", "couldn't've"), ("The Ten  oclock", "10 o'clock"),
        ("somebodyd", "somebody'd"),
    ],
)  # fmt: skip
def test_the_normal_form_of_an_answer(text, form):
    assert normal(text) == form


def test_four_questions_of_vqa_and_their_types(tmp_path):
    rows = [
        {
            "question_id": k, "answer_type": ["yes/no", "other"][k % 2], "question_type": "is the",
            "answers": [{"answer": "dog" if n < k else f"other {n}", "answer_id": n} for n in range(10)],
        }
        for k in (1, 2, 3, 4)
    ]  # fmt: skip
    said = [{"question_id": k, "answer": "dog"} for k in (3, 1, 4, 2)]
    found = scores(tmp_path, "vqav2", {"annotations": rows}, said)
    assert (found["accuracy"], found["questions"]) == (0.7, 4)
    assert found["per_answer_type"]["other"] == {"accuracy": 0.6, "questions": 2}
    assert found["per_answer_type"]["yes/no"] == {"accuracy": 0.8, "questions": 2}


# ---------------------------------------------------------------- ANLS


@pytest.mark.parametrize(
    ("answer", "right", "score"),
    [
        ("hello", ["hello"], 1.0),
        ("helo", ["hello"], 0.8),
        ("kitten", ["sitting"], 1 - 3 / 7),
        ("$1,200", ["$1200", "1200 USD"], 1 - 1 / 6),
        ("Hello  World", ["hello world"], 1.0),
        ("cat", ["dog"], 0.0),
        ("ab", ["ac"], 0.5),  # as the script of the challenge; 0 in the paper
        ("", [""], 1.0),
        ("", ["a"], 0.0),
        ("a page of text that goes on and on", ["a page"], 0.0),
    ],
)
def test_an_answer_scores_by_how_many_letters_are_right(answer, right, score):
    assert anls(answer, right) == score


@pytest.mark.parametrize("benchmark", ["docvqa", "infographicvqa"])
def test_the_mean_of_three_documents(tmp_path, benchmark):
    right = {"1": "hello", "2": "sitting", "3": "dog"}
    rows = [{"questionId": int(key), "question": "?", "answers": [text]} for key, text in right.items()]
    said = [{"questionId": n, "answer": text} for n, text in enumerate(("helo", "kitten", "cat"), 1)]
    assert scores(tmp_path, benchmark, {"data": rows}, said)["anls"] == pytest.approx((0.8 + 4 / 7) / 3, abs=1e-15)
    assert round(scores(tmp_path, benchmark, {"data": rows}, said)["anls"], 6) == 0.457143


_text = some.text("abc ", max_size=8)


@settings(deadline=None)
@given(_text, _text, _text)
def test_edit_distance_is_a_metric(a, b, c):
    assert edit_distance(a, b) == edit_distance(b, a)
    assert (edit_distance(a, b) == 0) == (a == b)
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)
    assert abs(len(a) - len(b)) <= edit_distance(a, b) <= max(len(a), len(b))


@settings(deadline=None)
@given(some.text("ab ", max_size=12), some.text("ab ", max_size=6))
def test_long_answers_are_given_up_early_and_score_the_same(answer, right):
    longer = max(len(answer), len(right))
    whole = 1 - edit_distance(" ".join(answer.split()), " ".join(right.split())) / longer if longer else 1.0
    assert anls(answer, [right]) == (whole if whole >= 0.5 else 0.0)


# ---------------------------------------------------------------- ChartQA


@pytest.mark.parametrize(
    ("answer", "right", "is_right"),
    [
        ("105", "100", True), ("95", "100", True), ("94.9", "100", False), ("106", "100", False), ("21", "20", True),
        ("3.15", "3", True), ("12%", "12", False), (".12", "12%", True), ("0", "0", True), ("0.0", "0", False),
        ("Yes", "yes", True), ("1,200", "1200", False), ("-5", "5", False), ("2010", "2019", True), ("a", "b", False),
    ],
)  # fmt: skip
def test_numbers_may_be_five_percent_off(answer, right, is_right):
    assert relaxed(answer, right) is is_right


def chart_files(halves: dict[str, int]) -> dict:
    return {
        f"test_{half}.json": [{"imgname": "1.png", "query": f"{half} {n}?", "label": "yes"} for n in range(5)]
        for half in halves
    }


def test_the_score_of_charts_is_the_mean_of_both_halves(tmp_path):
    right = {"human": 3, "augmented": 4}
    files = chart_files(right)
    said = [
        {"imgname": "1.png", "query": f"{half} {n}?", "answer": "yes" if n < right[half] else "no"}
        for n in range(5)
        for half in right
    ]
    found = scores(tmp_path, "chartqa", files, said, files=True)
    assert found["relaxed_accuracy"] == 0.7
    assert found["per_half"]["human"]["relaxed_accuracy"] == 0.6
    assert found["per_half"]["augmented"]["relaxed_accuracy"] == 0.8
    assert scores(tmp_path, "chartqa", files, ["yes"] * 4 + ["no"] + ["yes"] * 3 + ["no"] * 2, files=True) == found


def test_halves_weigh_the_same_where_one_is_larger(tmp_path):
    files = chart_files({"human": 5, "augmented": 5})
    files["test_human.json"] = files["test_human.json"][:1]
    said = {f"1.png: augmented {n}?": "no" for n in range(5)} | {"1.png: human 0?": "yes"}
    assert scores(tmp_path, "chartqa", files, said, files=True)["relaxed_accuracy"] == 0.5


def test_a_chart_of_which_the_same_is_asked_twice_is_answered_twice(tmp_path):
    row = {"imgname": "1.png", "query": "What?", "label": "a"}
    said = [{"imgname": "1.png", "query": "What?", "answer": answer} for answer in "ab"]
    found = scores(tmp_path, "chartqa", [row, row | {"label": "b"}], said)
    assert (found["relaxed_accuracy"], found["questions"]) == (1.0, 2)
