"""The reserve: large for short jobs, small for long ones, never above its bound."""

from __future__ import annotations

from penstock.reserve import Reserve


def _after(reserve: Reserve, seconds: float, jobs: int = 2000) -> int:
    for _ in range(jobs):
        reserve.held(1000)
        reserve.ran(seconds)
    return reserve.prefetch


def test_it_begins_with_half_the_slots_and_never_with_nothing() -> None:
    assert (Reserve(16).prefetch, Reserve(1).prefetch) == (24, 2)


def test_short_jobs_raise_it_to_cover_the_wire_and_no_further() -> None:
    assert 16 + 64 / 1.5 <= _after(Reserve(16), 0.005) <= 16 + 64
    assert 16 + 256 / 1.5 <= _after(Reserve(16), 0.0001) <= 16 + 256


def test_long_jobs_bring_it_back() -> None:
    reserve = Reserve(16)
    assert _after(reserve, 0.0001) > 180
    assert _after(reserve, 5.0) == 24


def test_a_bound_holds_however_short_the_jobs() -> None:
    assert 16 + 30 / 1.5 <= _after(Reserve(16, most=30), 0.0001) <= 46


def test_a_bound_below_the_beginning_does_not_shrink_it() -> None:
    assert _after(Reserve(16, most=-3), 0.0001) == 24


def test_it_asks_to_consume_anew_only_for_a_real_change() -> None:
    reserve = Reserve(16)
    asked = 0
    for _ in range(10_000):
        reserve.held(1000)
        asked += reserve.ran(0.0001)
    assert 1 <= asked <= 10


def test_it_does_not_grow_for_short_jobs_that_come_seldom() -> None:
    reserve = Reserve(16)
    assert not any(reserve.ran(0.0001) for _ in range(10_000))
