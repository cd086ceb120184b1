"""What the benchmark's judgement holds: ratios are ours over theirs, and bounds decide, each where it applies."""

from __future__ import annotations

import pytest

from tests.bench.cells import CELLS, COMPARED, FLAT, NOOPS
from tests.bench.in_turn import figures as figures_of
from tests.bench.in_turn import overhead
from tests.bench.measures import EXPERIMENTS, MEASURES, RIVALS, chosen
from tests.bench.targets import TARGETS, Verdict, number, ratio, verdicts


def verdict(figures: dict[str, dict[str, float]], measure: str, rival: str | None = None) -> Verdict:
    """The one verdict on *measure* (against *rival*) that *figures* allow."""
    [found] = [
        verdict
        for verdict in verdicts("4.3", figures)
        if verdict.target.measure == measure and (verdict.target.rival or (None, None))[1] == rival
    ]
    return found


@pytest.mark.parametrize(("ours", "reached"), [(850.0, True), (849.0, False)])
def test_a_ratio_is_reached_from_its_bound_upward(ours: float, reached: bool) -> None:
    """0.85 of Pika is enough, less is not."""
    found = verdict({"publish_async": {"penstock": ours, "pika": 1000.0}}, "publish_async", "pika")
    assert (found.value, found.reached) == (ours / 1000, reached)


@pytest.mark.parametrize(("ours", "reached"), [(60.0, True), (60.1, False)])
def test_an_upper_bound_is_reached_up_to_it(ours: float, reached: bool) -> None:
    """Memory and latency are better when smaller."""
    assert verdict({"idle_mb": {"penstock": ours}}, "idle_mb").reached is reached


def test_latency_is_to_be_below_every_rivals() -> None:
    """One slower rival does not excuse a faster one."""
    figures = {"latency_p50_ms": {"penstock": 1.2, "celery": 2.0, "taskiq": 1.1}}
    assert verdict(figures, "latency_p50_ms", "celery").reached
    assert not verdict(figures, "latency_p50_ms", "taskiq").reached


def test_sixteen_threads_are_held_against_one_connection_of_pika() -> None:
    """Pika's own sixteen connections are shown, not judged by."""
    figures = {
        "publish_1_thread": {"penstock": 900.0, "pika": 1000.0},
        "publish_16_threads": {"penstock": 4000.0, "pika": 3900.0},
    }
    assert verdict(figures, "publish_16_threads", "pika").value == 4.0


def test_rivals_are_judged_on_the_newest_broker_only() -> None:
    """Pika is judged everywhere, multiples of rivals on 4.3."""
    figures = {"work_async": {"penstock": 20.0, "pika": 10.0, "celery": 1.0}}
    judged = {
        broker: {v.target.rival[1] for v in verdicts(broker, figures) if v.target.rival} for broker in ("3.10", "4.3")
    }
    assert judged == {"3.10": {"pika"}, "4.3": {"pika", "celery"}}


def test_a_drain_that_slows_down_or_speeds_up_is_not_flat() -> None:
    """The last tenth is within ten per cent of the first, either way."""

    def flat(last: float) -> bool:
        figures = {"drain_first_tenth": {"penstock": 100.0}, "drain_last_tenth": {"penstock": last}}
        return all(found.reached for found in verdicts("3.10", figures))

    assert [flat(last) for last in (89.0, 91.0, 109.0, 111.0)] == [False, True, True, False]


def test_what_was_not_measured_is_not_judged() -> None:
    """No figure of ours or of theirs: no verdict."""
    assert list(verdicts("4.3", {"work_async": {"celery": 1.0}, "publish_async": {"penstock": 1.0}})) == []


def test_a_ratio_says_how_many_times_as_much_we_did() -> None:
    """Ours over theirs; None when there is nothing to divide."""
    figures = {"work_async": {"penstock": 20.0, "celery": 2.0}}
    assert ratio(figures, "work_async", "celery") == 10.0
    assert ratio(figures, "work_async", "pika") is None


def test_every_target_names_what_is_measured() -> None:
    """A target on a measure, or against an entrant, that nobody takes is never judged."""
    taken = {(m.name, who) for experiment in EXPERIMENTS for m in experiment.measures for who in experiment.who}
    wanted = {(t.measure, "penstock") for t in TARGETS} | {t.rival for t in TARGETS if t.rival}
    assert wanted - taken == set()


@pytest.mark.parametrize(("ours", "percent"), [(1000.0, 0.0), (500.0, 125.0), (2000.0, -62.5)])
def test_an_overhead_is_what_a_job_takes_beyond_a_no_op_and_the_transaction(ours: float, percent: float) -> None:
    """A no-op of 0.2 ms and a transaction of 0.8 ms: a job of 1 ms adds nothing, one of 2 ms adds 1 to 0.8."""
    assert overhead(ours, idle=5000.0, by_hand=1250.0) == pytest.approx(percent)


def lap(noop: float, hand1: float, ours: float, **others: float) -> dict[str, float]:
    """The rates of one lap."""
    return {"noop": noop, "hand1": hand1, "ours": ours, **others}


def test_figures_of_laps_are_medians_and_a_mood_that_met_all_of_a_lap_changes_no_overhead() -> None:
    """The machine is as slow as half in one of them."""
    found = figures_of([lap(5000, 1250, 1000), lap(2500, 625, 500), lap(5000, 1250, 1000)])
    assert found == {"noop": 5000, "hand": 1250, "ours": 1000, "overhead": pytest.approx(0), "laps": 3}


def test_of_several_ways_by_hand_the_fastest_one_counts() -> None:
    """As a careful person would choose."""
    found = figures_of([lap(5000, 1250, 500, hand2=900)])
    assert found["hand"] == 1250
    assert found["overhead"] == pytest.approx(125)
    assert figures_of([lap(5000, 900, 500, hand2=1250)]) == found


def test_what_a_full_store_leaves_of_the_rate_is_taken_lap_by_lap() -> None:
    """0.9 in two of three."""
    found = figures_of([lap(1, 1, 1000, full=900), lap(1, 1, 500, full=450), lap(1, 1, 1000, full=100)])
    assert found["full"] == 450
    assert found["share"] == pytest.approx(0.9)


@pytest.mark.parametrize(("measure", "bound", "beyond"), [("overhead", 15, 15.1), ("share", 0.9, 0.899)])
def test_overheads_and_what_many_marks_leave_are_judged(measure: str, bound: float, beyond: float) -> None:
    """Up to 15 %, and nine tenths of the rate."""
    [cell] = [cell for cell in FLAT if cell.name == "effect_postgres_64x1"]
    name = cell.overhead if measure == "overhead" else cell.share
    assert verdict({name: {"penstock": bound}}, name).reached
    assert not verdict({name: {"penstock": beyond}}, name).reached


def test_every_cell_has_a_no_op_beside_it_and_a_name_of_its_own() -> None:
    """With as many slots and processes."""
    assert {cell.idle for cell in COMPARED} == set(NOOPS)
    assert len(CELLS) == len((*NOOPS, *COMPARED, *FLAT))
    assert [cell.full.name for cell in FLAT] == [f"{cell.name}_full" for cell in FLAT]


def test_everything_about_effects_is_chosen_by_one_word() -> None:
    """And nothing else is."""
    chosen_ones = {experiment.name for experiment in chosen(("effects",))}
    assert chosen_ones == {*(cell.name for cell in COMPARED), "relay_postgres", "relay_sqlite"}


def test_measures_are_chosen_by_their_own_or_their_experiments_name() -> None:
    """One run yields both latencies; nothing named means all."""
    assert chosen(("latency_p50_ms",)) == chosen(("latency",)) != ()
    assert chosen(()) == EXPERIMENTS
    with pytest.raises(ValueError, match="no measure speed"):
        chosen(("speed",))


def test_everyone_who_is_compared_closely_takes_as_many_rounds() -> None:
    """Rivals may take fewer, all of them alike."""
    for experiment in EXPERIMENTS:
        assert len({experiment.rounds_of(who) for who in experiment.who if who in RIVALS}) <= 1
        assert len({experiment.rounds_of(who) for who in experiment.who if who not in RIVALS}) == 1


@pytest.mark.parametrize(("value", "text"), [(28411.4, "28,411"), (99.94, "99.9"), (1.234, "1.23"), (0.0, "0")])
def test_figures_show_as_many_digits_as_they_are_worth(value: float, text: str) -> None:
    """Thousands marked, three digits below a hundred."""
    assert number(value) == text


def test_verdicts_are_told_in_words() -> None:
    """With the unit, or with whom it is compared."""
    figures = {"work_async": {"penstock": 20.0, "pika": 10.0}, "idle_mb": {"penstock": 50.0}}
    against, absolute = verdict(figures, "work_async", "pika"), verdict(figures, "idle_mb")
    assert (against.goal(), against.text()) == ("≥ 0.75 × pika (decides)", "2.00 × pika")
    assert (absolute.goal(), absolute.text()) == ("≤ 60 MB", "50 MB")
    assert MEASURES["idle_mb"].unit == "MB"
