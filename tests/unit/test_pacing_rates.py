"""Rates and what comes of them: no more than a rate, and a line in which everybody waits once."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.pacing.lines import LONGEST, join, whole_seconds
from penstock.pacing.rate_limits import BURST, OwnBudgets, Standing, decide, per_second, written


@pytest.mark.parametrize("text", ["", "5", "0/s", "5/d", "-5/s", "1.5/s", "5/s5/s"])
def test_a_rate_is_a_whole_number_in_a_time(text: str) -> None:
    with pytest.raises(ValueError, match="is no rate such as 10/s, 30/m or 1000/h"):
        per_second(text)


@pytest.mark.parametrize(
    ("text", "words"), [("10/s", "10 a second"), ("30/m", "30 a minute"), ("7/h", "7 an hour"), ("120/m", "2 a second")]
)
def test_a_rate_is_told_as_it_was_written_or_in_a_smaller_unit(text: str, words: str) -> None:
    assert written(per_second(text)) == words


@dataclass
class Play:
    """Calls that come to one budget, and those that wait and come again, by the clock of the test."""

    rate: float
    late: Iterator[float]
    standing: Standing = field(default_factory=Standing)
    made: list[float] = field(default_factory=list)
    waits: dict[int, int] = field(default_factory=dict)

    def run(self, arrivals: list[float]) -> None:
        """Let a call come at each of *arrivals*, and go on until every one is made."""
        coming = [(at, number) for number, at in enumerate(arrivals)]
        heapq.heapify(coming)
        while coming:
            now, number = heapq.heappop(coming)
            before = self.waits.get(number, 0)
            self.standing, wait = decide(self.standing, now, self.rate, returning=before > 0, roll=0.5)
            if wait == 0:
                self.made.append(now)
                continue
            self.waits[number] = before + 1
            again = now + whole_seconds(wait).total_seconds() + next(self.late)
            heapq.heappush(coming, (again, number))


def lates(most: float) -> Iterator[float]:
    """Up to *most* seconds, in no order."""
    number = 0
    while True:
        number = (number * 1103515245 + 12345) % 2**31
        yield most * number / 2**31


@pytest.mark.parametrize("rate", [0.5, 10.0, 100.0])
@pytest.mark.parametrize("late", [0.05, 0.5])
def test_five_hundred_at_once_go_out_at_the_rate_and_nearly_all_wait_once(rate: float, late: float) -> None:
    play = Play(rate, lates(late))
    play.run([1000 + number * 0.003 for number in range(500)])
    lasted = play.made[-1] - play.made[0]
    assert 500 / rate - 2 * BURST - 2 <= lasted <= 500 / rate + 2 + late
    assert max(play.waits.values()) <= 2
    assert sum(play.waits.values()) <= 510


def test_more_than_may_go_for_long_are_made_at_the_rate_in_their_order() -> None:
    play = Play(10, lates(0.3))
    play.run([1000 + number / 15 for number in range(1500)])
    assert (play.made[-1] - play.made[0]) <= 1500 / 10 * 1.05
    assert max(play.waits.values()) <= 3


def test_fewer_than_may_go_never_wait() -> None:
    play = Play(10, lates(0.3))
    play.run([1000 + number / 9 for number in range(300)])
    assert play.waits == {}


@given(rate=st.floats(0.01, 500), steps=st.lists(st.tuples(st.floats(0, 2), st.booleans()), max_size=150))
def test_no_order_of_calls_gets_more_than_the_rate(rate: float, steps: list[tuple[float, bool]]) -> None:
    now, standing, gone = 1000.0, Standing(), list[float]()
    for step, returning in steps:
        now += step
        standing, wait = decide(standing, now, rate, returning=returning, roll=0)
        assert 0 <= wait <= LONGEST
        if wait == 0:
            gone.append(now)
    for first, begun in enumerate(gone):
        for last in range(first, len(gone)):
            # Of the second before as many may be left over, and the first counts as one.
            assert last - first <= (gone[last] - begun + BURST) * rate + 1e-6


def test_a_clock_that_was_set_back_holds_nobody_up_for_longer_than_the_longest_wait() -> None:
    a_year_ahead = 1000 + 365 * 86400.0
    standing, wait = decide(Standing(a_year_ahead, a_year_ahead), 1000.0, 0.5, returning=True, roll=0)
    assert 0 < wait <= LONGEST
    later = 1000 + LONGEST
    assert decide(standing, later, 0.5, returning=True, roll=0)[1] == 0
    assert decide(standing, later, 0.5, returning=False, roll=0)[1] == 0


@given(end=st.floats(0, 1e5), earliest=st.floats(0, 1e5), spacing=st.floats(0, 100), roll=st.floats(0, 0.999))
def test_a_place_is_neither_too_early_nor_too_close_to_the_one_before(
    end: float, earliest: float, spacing: float, roll: float
) -> None:
    earliest = max(earliest, 1000.0)
    new, wait = join(end, 1000.0, earliest, spacing, roll)
    assert 0 <= wait <= LONGEST
    if max(end + spacing, earliest) - 1000.0 <= LONGEST:
        assert new == max(end + spacing, earliest) == pytest.approx(1000.0 + wait)
    else:
        assert new == end, "who would wait too long gets no place"
        assert wait >= LONGEST / 2


async def test_every_destination_has_a_budget_of_its_own_and_old_ones_are_forgotten() -> None:
    at = [1000.0]
    budgets = OwnBudgets(lambda: at[0])
    asked = [await budgets.ask(name, 0.5, returning=False) for name in ("a.test", "b.test", "a.test")]
    assert asked == [0, 0, 1]
    for number in range(30_000):
        at[0] += 10
        await budgets.ask(f"{number}.test", 0.5, returning=False)
    assert len(budgets._standings) <= 10_001  # what is forgotten cannot be told from outside
