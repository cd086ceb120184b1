"""What the benchmark's results hold: medians of the rounds, one shape on disk, and a page that is made from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from tests.bench import report, results
from tests.bench.__main__ import turns
from tests.bench.measures import EXPERIMENTS, chosen

[WORK] = chosen(("work_async",))
[LATENCY] = chosen(("latency",))

MACHINE = {
    "processor": "A Processor",
    "cores": 2,
    "memory_gb": 25,
    "system": "Debian",
    "kernel": "6",
    "load_average": 1.9,
}


def document() -> dict[str, Any]:
    """Results of one broker with a target reached and one missed."""
    figures = {"work_async": {"penstock": 20000.0, "pika": 25000.0, "celery": 4000.0}}
    return results.document([results.setting(["clients"], MACHINE, {"python": "3.11.2"})], {"4.3": figures})


def test_a_figure_is_the_median_of_its_rounds() -> None:
    """One disturbed round does not spoil it."""
    gathered = results.Gathered()
    for rate in (20000.0, 100.0, 21000.0):
        gathered.add(WORK, "penstock", {"rate": rate, "cpu_us": 1.0})
    assert gathered.medians() == {"work_async": {"penstock": 20000}}


def test_one_run_may_yield_several_measures() -> None:
    """Each under its own name."""
    gathered = results.Gathered()
    gathered.add(LATENCY, "pika", {"p50_ms": 1.0, "p99_ms": 4.0})
    assert gathered.medians() == {"latency_p50_ms": {"pika": 1.0}, "latency_p99_ms": {"pika": 4.0}}


def test_figures_are_kept_with_the_digits_they_are_worth() -> None:
    """Whole numbers from a hundred, three digits below."""
    assert [results.rounded(value) for value in (28411.4, 99.94, 1.2345)] == [28411, 99.9, 1.23]


def test_results_come_back_as_they_were_saved(tmp_path: Path) -> None:
    """The file is machine, versions and figures by broker, measure and entrant."""
    results.save(document(), tmp_path / "results.json")
    read = results.load(tmp_path / "results.json")
    assert read == document()
    assert read["brokers"]["4.3"]["work_async"]["penstock"] == 20000


def test_a_part_that_is_measured_later_keeps_the_rest_and_says_where_each_was_taken() -> None:
    """What nobody measures any more is left out."""
    old = document()
    old["brokers"]["4.3"]["forgotten"] = {"penstock": 1.0}
    taken = results.setting(["effects"], MACHINE | {"processor": "Another"}, {"python": "3.14"})
    found = results.merged(old, {"3.10": {"relay_sqlite": {"penstock": 9000.0}}}, taken)
    assert found["brokers"] == {
        "3.10": {"relay_sqlite": {"penstock": 9000.0}},
        "4.3": {"work_async": {"penstock": 20000.0, "pika": 25000.0, "celery": 4000.0}},
    }
    assert [(each["groups"], each["machine"]["processor"]) for each in found["settings"]] == [
        (["clients"], "A Processor"),
        (["effects"], "Another"),
    ]
    again = results.merged(found, {}, results.setting(["clients", "effects"], MACHINE, {}))
    assert [each["groups"] for each in again["settings"]] == [["clients", "effects"]]


def test_entrants_take_turns_round_by_round() -> None:
    """Everyone once, then everyone with a round left: drift of the machine meets all alike."""
    order = list(turns(WORK, ("penstock", "pika", "celery")))
    assert order[:3] == [(0, "pika"), (0, "penstock"), (0, "celery")]
    assert [who for turn, who in order if turn == WORK.rival_rounds] == ["pika", "penstock"]
    assert order[-1][0] == WORK.rounds - 1


def test_a_row_shows_figures_and_how_many_times_as_much_we_did() -> None:
    """Empty where somebody did not take part."""
    [row] = report.rows(document()["brokers"]["4.3"])
    assert row == (
        "work, jobs on the loop (/s)",
        "20,000",
        "25,000 (0.80×)",
        "",
        "4,000 (5.00×)",
        "",
        "",
        "",
    )


def test_effects_have_a_table_of_their_own() -> None:
    """The three rates and what follows from them; a cell beside many marks has a row, and nothing by hand."""
    figures = {
        "noop_beside_effect_sqlite_64x1": {"penstock": 20000.0},
        "hand_beside_effect_sqlite_64x1": {"penstock": 1500.0},
        "effect_sqlite_64x1": {"penstock": 1000.0},
        "overhead_effect_sqlite_64x1": {"penstock": 42.5},
        "effect_sqlite_64x1_full": {"penstock": 950.0},
    }
    assert list(report.effects(figures)) == [
        ('once="effect", SQLite', "64 × 1", "20,000", "1,500", "1,000", "42.5 %"),
        ('once="effect", SQLite, 2,000,000 marks before', "64 × 1", "", "", "950", ""),
    ]
    assert list(report.rows(figures)) == []


def test_the_page_says_where_it_was_measured_and_what_was_missed() -> None:
    """Machine, versions, figures, targets and how to repeat it."""
    page = report.page(document())
    for part in (
        "**Publishing, working, latency and memory** were measured on this machine: A Processor, 2 cores",
        "python 3.11.2",
        "## RabbitMQ 4.3",
        "| work, jobs on the loop | ≥ 0.75 × pika (decides) | 0.80 × pika | reached |",
        "| work, jobs on the loop | ≥ 7 × celery | 5.00 × celery | **missed** |",
        "make bench",
    ):
        assert part in page


def test_the_terminal_shows_every_broker_in_one_table() -> None:
    """With the verdicts below it."""
    console = Console(width=200, record=True, quiet=False, file=None)
    with console.capture() as shown:
        report.show(console, {"3.10": document()["brokers"]["4.3"], "4.3": document()["brokers"]["4.3"]})
    text = shown.get()
    assert text.count("work, jobs on the loop (/s)") == 2
    assert "missed" in text


def test_the_published_page_is_made_from_the_published_results() -> None:
    """Neither is edited by hand; without results there is no page."""
    assert results.FILE.exists() == report.PAGE.exists()
    if results.FILE.exists():
        assert report.PAGE.read_text() == report.page(results.load())


def test_every_measure_has_a_name_of_its_own() -> None:
    """Results are filed by it."""
    names = [measure.name for experiment in EXPERIMENTS for measure in experiment.measures]
    assert len(names) == len(set(names))
