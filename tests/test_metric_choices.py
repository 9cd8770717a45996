"""Metrics of questions with options: what is read from a model's words, and what counts as right."""

import random

import pytest
from benchmark_cases import choice_row, scores, write
from hypothesis import given, settings
from hypothesis import strategies as some

from schemas.errors import InputError
from training.evaluate.benchmark import score_predictions
from training.evaluate.benchmarks import ai2d, mathvista, mvbench, scienceqa, videomme
from training.evaluate.measures.mmmu_answer import chosen_letter, open_answer_is_right
from training.evaluate.measures.option_letters import inferred, stated_letters

# ---------------------------------------------------------------- MMBench


def rotated(index: int, answer: str, options: str) -> list[dict]:
    """Rows of a question, its options turned round once for each option."""
    rows = []
    for turn in range(len(options)):
        turned = options[turn:] + options[:turn]
        letter = "ABCD"[turned.index(answer)]
        rows.append(choice_row(index + turn * 1_000_000, letter, [*turned, *[""] * (4 - len(options))]))
    return rows


def right_letters(rows: list[dict]) -> dict[str, str]:
    return {str(row["index"]): row["answer"] for row in rows}


def wrong(row: dict) -> str:
    return "A" if row["answer"] != "A" else "B"


def test_a_question_is_right_where_every_turn_of_its_options_is(tmp_path):
    first, second, third, fourth = (
        rotated(1, "w", "wxyz"), rotated(2, "x", "wxyz"), rotated(3, "w", "wx"), rotated(4, "z", "wxyz")
    )  # fmt: skip
    said = right_letters(first + second + third)
    said["3000002"] = wrong(second[3])
    said |= {str(row["index"]): wrong(row) for row in fourth}
    write(tmp_path / "dev.tsv", [*first, *second, *third, *fourth])
    found = score_predictions("mmbench", [tmp_path / "dev.tsv"], write(tmp_path / "said.json", said)).record()
    assert (found["circular_accuracy"], found["vanilla_accuracy"], found["questions"]) == (0.5, 0.75, 4)
    assert found["per_l2-category"]["kinds"]["circular_accuracy"] == 0.5
    without = said | {"3000001": "I do not know."}
    found = score_predictions("mmbench", [tmp_path / "dev.tsv"], write(tmp_path / "said.json", without)).record()
    assert (found["circular_accuracy"], found["vanilla_accuracy"], found["unparsed"]) == (0.25, 0.75, 1)


def test_without_copies_there_is_vanilla_accuracy_alone(tmp_path):
    rows = [choice_row(n, "B") for n in range(4)]
    table = [{"index": row["index"], "prediction": "BBBA"[row["index"]], "question": "what was asked"} for row in rows]
    write(tmp_path / "dev.tsv", rows)
    found = score_predictions("mmbench", [tmp_path / "dev.tsv"], write(tmp_path / "said.tsv", table)).record()
    assert found["vanilla_accuracy"] == 0.75
    assert "circular_accuracy" not in found


def test_a_split_without_answers_is_refused(tmp_path):
    write(tmp_path / "test.tsv", [choice_row(1, "")])
    with pytest.raises(InputError, match="the test split has none"):
        score_predictions("mmbench", [tmp_path / "test.tsv"], write(tmp_path / "said.json", {"1": "A"}))
    for benchmark, rows in (("mmmu", [exam(1, "?")]), ("mathvista", {"1": problem("", "text")})):
        with pytest.raises(InputError, match="the test split has none"):
            scores(tmp_path / benchmark, benchmark, rows, {"1": "A"})


@settings(max_examples=30, deadline=None)
@given(some.lists(some.sampled_from("wxyz"), min_size=1, max_size=8), some.randoms())
def test_always_the_same_letter_is_never_right_and_the_text_always_is(tmp_path_factory, answers, draw):
    folder = tmp_path_factory.mktemp("turns")
    rows = [row for n, answer in enumerate(answers) for row in rotated(n, answer, "wxyz")]
    write(folder / "dev.tsv", draw.sample(rows, len(rows)))
    for letter in "ABCD":
        said = write(folder / "said.json", {str(row["index"]): letter for row in rows})
        assert score_predictions("mmbench", [folder / "dev.tsv"], said).metrics["circular_accuracy"] == 0.0
    said = write(folder / "said.json", {str(row["index"]): answers[row["index"] % 1_000_000] for row in rows})
    assert score_predictions("mmbench", [folder / "dev.tsv"], said).metrics["circular_accuracy"] == 1.0


def test_a_guesser_of_four_options_is_right_as_often_as_chance(tmp_path):
    draw = random.Random(0)
    rows = [row for n in range(2560) for row in rotated(n, "w", "wxyz")]
    write(tmp_path / "dev.tsv", rows)
    said = write(tmp_path / "said.json", {str(row["index"]): draw.choice("ABCD") for row in rows})
    found = score_predictions("mmbench", [tmp_path / "dev.tsv"], said).metrics
    assert found["circular_accuracy"] == pytest.approx(1 / 256, abs=0.004)
    assert found["vanilla_accuracy"] == pytest.approx(0.25, abs=0.04)


_OPTIONS = {"A": "cat", "B": "dog", "C": "a hot dog"}


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"), ("B.", "B"), ("(B)", "B"), ("**B**", "B"), ("The answer is B.", "B"), ("B. dog", "B"), ('"B"', "B"),
        ("the cat", "A"), ("A cat", "A"), ("It shows a small DOG", "B"), ("a hot dog", ""),  # it holds "dog" too
        ("cattle and catfish", ""), ("A or B", ""), ("E", ""), ("", ""), ("BC", ""), ("A is right", "A"),
    ],
)  # fmt: skip
def test_the_only_letter_that_stands_alone_is_read_or_else_the_only_text(text, letter):
    assert inferred(text, _OPTIONS, official=False) == letter


def test_an_article_is_the_letter_a_for_the_official_inference_alone():
    assert inferred("A dog", _OPTIONS, official=False) == "B"
    assert inferred("A dog", _OPTIONS, official=True) == "A"
    assert inferred("cattle", _OPTIONS, official=True) == "A"
    assert stated_letters("A, B or C; not a D-day", "ABCD") == ["A", "B", "C"]


# ---------------------------------------------------------------- MMMU


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B.", "B"), ("(A) is wrong, so (C)", "C"), ("I think A or maybe B", "B"), ("Answer: D", "D"),
        ("it is clearly the small dog in the picture", "B"), ("dog", ""), ("B) dog", ""), ("**B**", ""), ("", ""),
    ],
)  # fmt: skip
def test_what_letter_the_exam_reads(text, letter):
    assert chosen_letter(text, {"A": "cat", "B": "dog", "C": "bird", "D": "fish"}) == letter


@pytest.mark.parametrize(
    ("text", "right", "is_right"),
    [
        ("The answer is 24.", ["24"], True),
        ("x = 3.14159", ["3.14"], True),
        ("So the total is 1,234 dollars.", ["1234"], True),
        ("Yes, it is true", ["yes", "true"], True),
        ("240", ["24"], False),
        ("1/2", ["0.5"], False),
        ("alpha", ["A"], False),
        ("a\nThe result is 7", ["7"], True),
        ("", ["7"], False),
    ],
)
def test_what_number_or_text_the_exam_reads(text, right, is_right):
    assert open_answer_is_right(text, right) is is_right


def exam(number: int, answer: str, question_type: str = "multiple-choice", subject: str = "Art") -> dict:
    return {
        "id": f"validation_{subject}_{number}", "question": "?", "options": "['cat', 'dog', 'bird', 'fish']",
        "answer": answer, "question_type": question_type,
    }  # fmt: skip


def test_exams_are_scored_over_all_questions_and_by_subject(tmp_path):
    rows = [exam(1, "A"), exam(2, "B"), exam(3, "B"), exam(1, "['yes', 'true']", "open", "Clinical_Medicine")]
    said = {row["id"]: text for row, text in zip(rows, ("A", "B", "(C)", "It is true."), strict=True)}
    found = scores(tmp_path, "mmmu", rows, said)
    assert (found["accuracy"], found["unparsed"]) == (0.75, 0)
    assert found["per_subject"]["Clinical_Medicine"] == {"accuracy": 1.0, "questions": 1}
    assert found["per_subject"]["Art"]["accuracy"] == pytest.approx(2 / 3)


def test_an_answer_without_an_option_is_wrong_and_officially_a_draw_of_a_known_seed(tmp_path):
    rows = [exam(n, "A") for n in range(400)]
    said = [{"id": row["id"], "response": "dog"} for row in rows]
    ours = scores(tmp_path, "mmmu", rows, said)
    assert (ours["accuracy"], ours["unparsed"]) == (0.0, 400)
    draw = random.Random(42)
    drawn = sum(draw.choice("ABCD") == "A" for _ in rows) / 400
    official = scores(tmp_path, "mmmu", rows, said, official=True)
    assert (official["accuracy"], official["unparsed"]) == (drawn, 400)
    assert 0.15 < drawn < 0.35


# ---------------------------------------------------------------- MathVista


def problem(answer: str, answer_type: str, precision: float | None = None, choices: list[str] | None = None) -> dict:
    return {
        "question": "?", "answer": answer, "answer_type": answer_type, "precision": precision, "choices": choices,
        "question_type": "multi_choice" if choices else "free_form",
        "metadata": {"skills": ["algebra", "geometry"], "task": "solving"},
    }  # fmt: skip


_CM = ["3 cm", "5 cm", "7 cm"]


@pytest.mark.parametrize(
    ("text", "row", "is_right"),
    [
        ("(B)", problem("5 cm", "text", choices=_CM), True),
        ("5cm", problem("5 cm", "text", choices=_CM), True),
        ("C", problem("7 cm", "text", choices=_CM), True),
        ("7.9", problem("7", "integer"), True),
        ("3.14159", problem("3.14", "float", 2.0), True),
        ("2", problem("2.0", "float", 1.0), True),
        ("seven", problem("7", "integer"), False),
        ("1,234", problem("1234", "integer"), False),
        ("[1,2]", problem("[1, 2]", "list"), False),
        ("[1, 2]", problem("[1, 2]", "list"), True),
        ('The answer is "5 cm".', problem("5 cm", "text", choices=_CM), True),
    ],
)
@pytest.mark.parametrize("official", [False, True])
def test_an_answer_of_mathematics_is_brought_into_form_and_must_be_equal(tmp_path, text, row, is_right, official):
    for entry in (text, {"extraction": text, "response": "…"}, {"response": text}):
        found = scores(tmp_path, "mathvista", {"1": row}, {"1": entry}, official=official)
        assert found["accuracy"] == float(is_right)
    assert found["per_skills"].keys() == {"algebra", "geometry"}


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("It is 2.5 cm long.", problem("2.5", "float", 1.0)),
        ("The answer is 7.", problem("7", "integer")),
        ("The answer is [1, 2].", problem("[1, 2]", "list")),
        ("So, the answer is: C", problem("7 cm", "text", choices=_CM)),
    ],
)
def test_ours_takes_the_answer_out_of_a_sentence_by_rules(tmp_path, text, row):
    assert scores(tmp_path, "mathvista", {"1": row}, {"1": text})["accuracy"] == 1.0


def test_an_answer_of_nothing_is_wrong_and_officially_the_shortest_choice(tmp_path):
    row = problem("3 cm", "text", choices=["3 cm", "15 cm"])
    ours, official = (scores(tmp_path, "mathvista", {"1": row}, {"1": ""}, official=on) for on in (False, True))
    assert (ours["accuracy"], ours["unparsed"], official["accuracy"]) == (0.0, 1, 1.0)
    assert mathvista.extracted("3 and 4", problem("3", "integer"), official=False) == "3 and 4"


# ---------------------------------------------------------------- Video-MME, MVBench


@pytest.mark.parametrize(
    ("text", "ours", "theirs"),
    [
        ("(C) a dog", "C", "C"),
        ("The best answer is: D", "D", "D"),
        ("none of these", "", ""),
        ("Best option: C", "C", "B"),
        ("Dogs are running", "", "D"),
        ("A", "A", "A"),
        ("A. Dogs", "A", "A"),
        ("A man runs", "", "A"),
        ("", "", ""),
    ],
)
def test_the_letter_of_a_question_about_a_video(text, ours, theirs):
    assert videomme.letter_in(text, official=False) == ours
    assert videomme.letter_in(text, official=True) == theirs


@pytest.mark.parametrize(
    ("text", "ours", "theirs"),
    [
        ("(A) walking", True, True),
        ("A", True, True),
        ("A. walking", True, True),
        ("(B) running", False, False),
        ("", False, True),
        ("(", False, True),
        ("(A)walking", True, True),
        ("running", False, False),
    ],
)
def test_the_first_word_of_an_answer_about_a_short_video(text, ours, theirs):
    assert mvbench.is_right(text, "A", official=False) is ours
    assert mvbench.is_right(text, "A", official=True) is theirs


def test_short_videos_score_the_mean_of_their_tasks(tmp_path):
    row = {"video": "v.mp4", "question": "?", "candidates": ["walking", "running"], "answer": "walking"}
    files = {"action_sequence.json": [row] * 4, "object_shuffle.json": [row] * 2}
    said = {"Action Sequence": ["A", "(A)", "A.", "B"], "Object Shuffle": [{"pred": "A"}, {"pred": ""}]}
    found = scores(tmp_path, "mvbench", files, said, files=True)
    assert (found["accuracy"], found["micro_accuracy"], found["unparsed"]) == (0.625, pytest.approx(2 / 3), 1)
    assert found["per_task"]["object_shuffle"] == {"accuracy": 0.5, "questions": 2}
    assert scores(tmp_path, "mvbench", files, said, files=True, official=True)["accuracy"] == 0.875
    apart = [{"question_id": f"action_sequence/{n}", "pred": "A" if n < 3 else "B"} for n in range(4)]
    apart += [{"question_id": f"object_shuffle/{n}", "pred": "AB"[n]} for n in range(2)]
    assert scores(tmp_path, "mvbench", files, apart, files=True)["accuracy"] == 0.625


# ---------------------------------------------------------------- ScienceQA, AI2D


@pytest.mark.parametrize(
    ("text", "ours", "theirs"),
    [
        ("B", "B", "B"), ("B. text", "B", "B"), ("The answer is B.", "B", "B"), ("It is B", "", ""), ("b", "", ""),
        ("", "", ""), ("F", "", ""), ("The answer is Because", "", "B"), ("The answer is A. The answer is B.", "", ""),
    ],
)  # fmt: skip
def test_the_letter_of_a_school_question(text, ours, theirs):
    assert scienceqa.letter_in(text, "ABCDE", official=False) == ours
    assert scienceqa.letter_in(text, "ABCDE", official=True) == theirs


@pytest.mark.parametrize(
    ("text", "letter"), [("B. dog", "B"), ("B", "B"), ("(b)", "B"), ("dog", ""), ("E", ""), ("The answer is B", "")]
)
def test_the_letter_of_a_question_about_a_diagram(text, letter):
    assert ai2d.letter_in(text, "ABCD") == letter
