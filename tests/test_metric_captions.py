"""Metrics of captions: words as the Penn Treebank splits them, CIDEr-D, BLEU and ROUGE-L."""

import math

import pytest
from benchmark_cases import COCO, scores
from hypothesis import assume, given, settings
from hypothesis import strategies as some

from training.evaluate.measures.bleu import bleu
from training.evaluate.measures.cider import cider_d
from training.evaluate.measures.ptb_tokens import ptb_tokens
from training.evaluate.measures.rouge_l import rouge_l


def words(*captions: str) -> list[list[str]]:
    return [caption.split() for caption in captions]


def cider(said: list[str], people: list[list[str]]) -> list[float]:
    return cider_d(words(*said), [words(*captions) for captions in people])


@pytest.mark.parametrize(
    ("caption", "split"),
    [
        ("A man's dog isn't here.", "a man 's dog is n't here"),
        ("T-shirt & 3.5 apples (red).", "t-shirt & 3.5 apples -lrb- red -rrb-"),
        ("it's 5:30 pm...", "it 's 5:30 pm"),
        ("can't", "ca n't"),
        ("Two people, one bike - riding!", "two people one bike riding"),
        ('"Hello," they\'re saying; 50% of $5', "hello they 're saying 50 % of $ 5"),
        ("You cannot\nsee the dogs' bowls", "you can not see the dogs bowls"),
        ("A U.S. flag and Mr. Bean at 5 p.m.", "a u.s. flag and mr. bean at 5 p.m."),
        ("", ""),
        ("...", ""),
    ],
)
def test_captions_are_split_as_the_penn_treebank_does(caption, split):
    assert ptb_tokens(caption) == split.split()


@pytest.mark.parametrize(
    ("people", "score"),
    [
        (["a red circle on a white background", "a blue square on a black table"], 10.0),
        (["a red circle", "a blue square"], 7.5),  # no runs of four
        (["red circle", "blue square"], 5.0),
        (["circle", "square"], 2.5),
    ],
)
def test_perfect_captions_score_by_the_runs_that_they_have(people, score):
    assert cider(people, [[caption] for caption in people]) == pytest.approx([score, score], abs=1e-12)


def test_of_one_picture_alone_every_word_is_in_all_pictures():
    assert cider(["a red circle on white"], [["a red circle on white"]]) == [0.0]


@pytest.mark.parametrize(
    ("said", "right", "other", "score"),
    [
        ("a red square", "a red circle", "a blue square", 2.5),
        ("red red red red", "red circle", "blue square", 0.418059),
        ("the blue square is here now ok", "the blue square is here", "the red circle is here", 7.008157),
    ],
)
def test_scores_of_captions_that_are_partly_right(said, right, other, score):
    assert cider([said, other], [[right], [other]])[0] == pytest.approx(score, abs=1e-6)


def test_lengths_are_compared_in_pairs_of_words():
    clipped = 1 / (4 * math.sqrt(2))
    said = cider(["red red red red", "blue square"], [["red circle"], ["blue square"]])[0]
    assert said == pytest.approx(10 / 4 * clipped * math.exp(-4 / 72), abs=1e-12)


def test_a_caption_that_is_one_of_two_references_scores_half():
    people = [["red circle", "blue square"], ["green star", "green star"]]
    first, second = cider(["red circle", "green star"], people)
    assert (first, second, (first + second) / 2) == pytest.approx((2.5, 5.0, 3.75), abs=1e-12)


@pytest.mark.parametrize(
    ("said", "right", "score"), [("a red square", "a red circle", 2 / 3), ("red circle", "a red circle", 0.772152)]
)
def test_rouge_of_words_in_order(said, right, score):
    assert rouge_l(said.split(), words(right)) == pytest.approx(score, abs=1e-6)


def test_bleu_of_one_word_changed_in_seven():
    found = bleu(words("the cat sat down on a mat"), [words("the cat sat up on a mat")])
    assert found[:3] == pytest.approx([0.857143, 0.755929, 0.611421], abs=1e-6)
    assert found[3] < 1e-3


def test_bleu_of_a_short_caption_pays_for_its_length():
    found = bleu(words("the cat"), [words("the cat sat")])
    assert found[0] == pytest.approx(math.exp(1 - 3 / 2), abs=1e-6)
    assert bleu(words("the cat"), [words("the cat sat", "cat the")])[0] == pytest.approx(1.0, abs=1e-6)


_caption = some.lists(some.sampled_from("red blue green circle square star on a".split()), min_size=4, max_size=9)  # noqa: SIM905


@settings(deadline=None)
@given(some.lists(_caption, min_size=2, max_size=6), some.randoms())
def test_perfect_captions_score_ten_and_the_order_changes_no_bit(captions, draw):
    pictures = [[caption] for caption in captions]
    everywhere = {
        n: set.intersection(*({tuple(c[i : i + n]) for i in range(len(c) - n + 1)} for c in captions))
        for n in range(1, 5)
    }
    for caption in captions:
        for n, runs in everywhere.items():
            assume(any(tuple(caption[i : i + n]) not in runs for i in range(len(caption) - n + 1)))
    found = cider_d(captions, pictures)
    assert found == pytest.approx([10.0] * len(captions), abs=1e-9)
    order = draw.sample(range(len(captions)), len(captions))
    assert cider_d([captions[n] for n in order], [pictures[n] for n in order]) == [found[n] for n in order]
    assert bleu(captions, pictures)[3] == pytest.approx(1.0, abs=1e-6)


def test_captions_of_coco_in_all_metrics(tmp_path):
    said = [{"image_id": row["image_id"], "caption": row["caption"].upper()} for row in COCO["annotations"]]
    found = scores(tmp_path, "coco_captions", COCO, said)
    assert (found["CIDEr"], found["ROUGE_L"]) == pytest.approx((10.0, 1.0), abs=1e-12)
    assert [found[f"Bleu_{n}"] for n in (1, 2, 3, 4)] == pytest.approx([1.0] * 4, abs=1e-6)
    silent = scores(tmp_path, "coco_captions", COCO, [row | {"caption": " ."} for row in said])
    assert (silent["CIDEr"], silent["Bleu_4"], silent["ROUGE_L"], silent["unparsed"]) == (0.0, 0.0, 0.0, 2)
