"""The verdict of a comparison: exact numbers from tiny arrays, and sentences that say no more than they allow."""

import numpy as np
import pytest
from scipy import stats

from schemas.errors import InputError
from training.comparison.verdict import Estimate, holm, interval, is_less_better, judge, p_value


def test_an_interval_is_students_t_over_seeds() -> None:
    found = interval([1.0, 2.0, 3.0])  # mean 2, sd 1, t(0.975, 2) = 4.302653
    assert found.mean == 2.0
    assert (found.low, found.high) == pytest.approx((2 - 4.302652729911275 / 3**0.5, 2 + 4.302652729911275 / 3**0.5))


def test_interval_and_p_are_those_of_scipys_paired_t_test() -> None:
    draw = np.random.default_rng(3)
    first, other = draw.normal(size=6), draw.normal(0.4, size=6)
    theirs = stats.ttest_rel(other, first)
    apart = [float(value) for value in other - first]
    assert p_value(apart) == pytest.approx(theirs.pvalue)
    ends = theirs.confidence_interval(0.95)
    assert (interval(apart).low, interval(apart).high) == pytest.approx((ends.low, ends.high))


def test_one_seed_has_no_interval_and_no_verdict() -> None:
    assert interval([0.5]) == Estimate(0.5, None, None)
    verdict = judge({"a": {"t.top1": [0.25]}, "b": {"t.top1": [0.75]}})
    assert verdict.differences[0].better is None
    assert verdict.differences[0].estimate.mean == 0.5
    assert verdict.sentences == (
        "Whether b or a is better cannot be told: one seed gives no interval (seen once, b against a: t.top1 +0.5000).",
    )


def test_differences_that_are_all_alike_tell_no_more_than_their_signs() -> None:
    assert p_value([0.25, 0.25]) == 0.5  # of two coins, both fall the same way every other time
    assert p_value([-0.25] * 6) == 0.03125
    assert p_value([0.0, 0.0]) == 1.0
    assert interval([0.25, 0.25]) == Estimate(0.25, 0.25, 0.25)
    assert judge({"a": {"m": [0.5, 0.5]}, "w": {"m": [0.75, 0.75]}}).sentences == (
        "Whether w or a is better cannot be told by m (+0.2500, +0.2500 to +0.2500).",
    )


def test_of_a_loss_the_smaller_is_better() -> None:
    scores = {"a": {"own.val_loss": [2.0, 2.1, 2.2, 2.3]}, "b": {"own.val_loss": [1.0, 1.2, 1.1, 1.4]}}
    verdict = judge(scores)
    assert verdict.differences[0].better == "b"
    assert verdict.sentences[0].startswith("b is better than a by own.val_loss (-0.9750, ")
    names = {"own.loss": True, "own.eval.error@5": True, "own.lossless": False, "own.top1": False, "t.recall@1": False}
    assert {name: is_less_better(name) for name in names} == names


def test_what_floats_round_is_no_spread_and_no_difference() -> None:
    alike = judge({"a": {"m": [0.3, 0.1]}, "w": {"m": [0.4, 0.2]}})  # 0.4 - 0.3 is not 0.2 - 0.1
    assert alike.differences[0].p == 0.5
    same = judge({"a": {"m": [0.3] * 8}, "w": {"m": [0.1 + 0.2] * 8}})
    assert (same.differences[0].p, same.differences[0].better) == (1.0, None)


def test_holm_corrects_for_how_many_comparisons_there_are() -> None:
    # by hand: 0.01·4; max of it and 0.02·3; then 0.03·2 = 0.06; 0.04·1 is less than the one before it
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_every_pair_is_judged_and_those_to_the_first_come_first() -> None:
    scores = {name: {"m": [0.1 * n, 0.2 * n + 0.01]} for n, name in enumerate("abc", 1)}
    pairs = [(d.first, d.other) for d in judge(scores).differences]
    assert pairs == [("a", "b"), ("a", "c"), ("b", "c")]


def test_seeds_that_vary_together_tell_more_in_pairs_than_apart() -> None:
    luck = [0.0, 0.3, -0.2, 0.1, -0.1]
    a, b = [0.4 + x for x in luck], [0.42 + x + 0.001 * n for n, x in enumerate(luck)]
    verdict = judge({"a": {"m": a}, "b": {"m": b}})
    assert verdict.means["a"]["m"].high > verdict.means["b"]["m"].low  # the sets' own intervals overlap
    assert verdict.differences[0].better == "b"


def test_the_sentence_names_the_winner_of_each_metric_and_what_cannot_be_told() -> None:
    scores = {
        "raw": {"x.top1": [0.50, 0.51, 0.52], "y.top1": [0.9, 0.8, 0.9], "z.top1": [0.1, 0.5, 0.3]},
        "fine": {"x.top1": [0.70, 0.71, 0.73], "y.top1": [0.5, 0.4, 0.49], "z.top1": [0.5, 0.1, 0.3]},
    }
    (sentence,) = judge(scores).sentences
    assert sentence == (
        "fine is better than raw by x.top1 (+0.2033, +0.1890 to +0.2177); raw is better than fine by y.top1 (+0.4033, "
        "+0.3890 to +0.4177); whether fine or raw is better cannot be told by z.top1 (+0.0000, -0.9937 to +0.9937)."
    )


def test_a_difference_that_holds_alone_may_not_hold_among_many() -> None:
    draw = np.random.default_rng(0)
    better = [0.010, 0.030, 0.016, 0.002, 0.024]
    noise = {f"n{n}": list(draw.normal(0, 0.02, 5)) for n in range(20)}
    zeros = dict.fromkeys(["m", *noise], [0.0] * 5)
    alone = judge({"a": zeros, "b": {"m": better, **noise}}, ["m"]).differences[0]
    among = judge({"a": zeros, "b": {"m": better, **noise}}).differences[0]
    assert alone.better == "b"
    assert among.estimate.low is not None
    assert among.estimate.low > 0  # its own interval excludes zero
    assert among.better is None


def test_a_metric_that_was_not_measured_is_named_with_those_that_were() -> None:
    scores = {"a": {"t.top1": [0.1]}, "b": {"t.top1": [0.2]}}
    with pytest.raises(InputError, match=r"--metric t\.top2: there is no 't\.top2'; did you mean 't\.top1'\?"):
        judge(scores, ["t.top2"])


def test_secondary_metrics_are_shown_and_judged_only_where_they_are_named() -> None:
    names = ("t.top1", "t.top5", "t.mean_per_class_recall", "r.image_to_text_recall@1", "r.image_to_text_recall@10")
    scores = {name: {metric: [0.1, 0.2] for metric in names} for name in "ab"}
    judged = judge(scores)
    assert [d.metric for d in judged.differences] == ["t.top1", "r.image_to_text_recall@1"]
    assert set(judged.means["a"]) == set(names)
    assert [d.metric for d in judge(scores, ["t.top5"]).differences] == ["t.top5"]
    only = {name: {"t.top5": [0.1, 0.2]} for name in "ab"}
    assert [d.metric for d in judge(only).differences] == ["t.top5"]
