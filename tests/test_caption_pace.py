"""The pace at which a server is asked, by a clock that the test turns."""

from hypothesis import given
from hypothesis import strategies as st

from curation.models.chat.pace import Pace


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(st.floats(0.5, 5000), st.lists(st.floats(0, 5), min_size=1, max_size=60))
def test_in_no_minute_more_requests_begin_than_the_limit_and_one(per_minute: float, gaps_s: list[float]) -> None:
    clock = Clock()
    pace = Pace(per_minute, None, clock)
    begins = []
    for gap_s in gaps_s:
        clock.now += gap_s
        begins.append(clock.now + pace.admit(0))
    assert begins == sorted(begins)
    assert all(sum(begin <= later < begin + 59.999 for later in begins) <= per_minute + 1 for begin in begins)


def test_requests_begin_evenly_and_the_first_at_once() -> None:
    pace = Pace(120, None, Clock())
    assert [pace.admit(0) for _ in range(4)] == [0, 0.5, 1.0, 1.5]


def test_time_in_which_nothing_was_asked_is_not_made_up_for() -> None:
    clock = Clock()
    pace = Pace(60, None, clock)
    assert pace.admit(0) == 0
    clock.now += 3600
    assert [pace.admit(0) for _ in range(2)] == [0, 1]


def test_tokens_count_as_expected_until_they_are_known() -> None:
    clock = Clock()
    pace = Pace(None, 600, clock)
    assert pace.admit(100) == 0
    assert pace.admit(100) == 10  # a hundred of six hundred a minute
    pace.answered(100, 40)
    pace.answered(40, 40)  # by now 40 are expected; what this one was taken for is known to nobody
    clock.now += 100
    assert [pace.admit(100) for _ in range(3)] == [0, 4, 8]
    pace.answered(100, 0)  # refused: what it was taken for is given back
    assert pace.admit(100) == 8


def test_without_limits_nothing_waits_but_for_a_pause_and_the_longest_counts() -> None:
    clock = Clock()
    pace = Pace(None, None, clock)
    assert [pace.admit(9) for _ in range(3)] == [0, 0, 0]
    assert pace.quiet_s == 0
    pace.pause(7)
    pace.pause(3)
    assert pace.quiet_s == 7
    clock.now += 6
    assert pace.quiet_s == 1
    clock.now += 6
    assert pace.quiet_s == 0
