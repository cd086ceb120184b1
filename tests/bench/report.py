"""Shows results: one table on the terminal, and the page of the documentation, both from the same rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.cells import COMPARED, Cell
from tests.bench.measures import CLIENTS, EFFECTS, EXPERIMENTS, MEASURES, RIVALS, SCHEDULES, Shape
from tests.bench.targets import Figures, Verdict, number, ratio, verdicts

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"

#: The columns, in order.
WHO = ("penstock", "pika", "c", *RIVALS)
#: The columns of the table of effects.
_HEAD_OF_EFFECTS = (
    "effects once",
    "slots × processes",
    "no-op, no store (/s)",
    "by hand (/s)",
    "penstock (/s)",
    "overhead",
)

_GROUPS = {
    CLIENTS: "publishing, working, latency and memory",
    EFFECTS: "effects once and outboxes",
    SCHEDULES: "schedules",
}

#: What has a table of its own.
_ELSEWHERE = {measure.name for each in EXPERIMENTS if each.shape is Shape.TURNS for measure in each.measures}


def cells(figures: Figures, measure: str) -> Iterator[str]:
    """One measure's row: Penstock's figure, then each other's with how many times as much Penstock did."""
    for who in WHO:
        figure = figures.get(measure, {}).get(who)
        if figure is None:
            yield ""
        elif who == "penstock" or (times := ratio(figures, measure, who)) is None:
            yield number(figure)
        else:
            yield f"{number(figure)} ({times:.2f}×)"


def rows(figures: Figures) -> Iterator[tuple[str, ...]]:
    """Every measured measure's row, title and unit first."""
    for measure in MEASURES.values():
        if measure.name in figures and measure.name not in _ELSEWHERE:
            yield f"{measure.title} ({measure.unit})", *cells(figures, measure.name)


def effects(figures: Figures) -> Iterator[tuple[str, ...]]:
    """The row of every cell in which a store takes part."""
    for cell in COMPARED:
        if cell.name in figures:
            over = _figure(figures, cell.overhead)
            rates = (_figure(figures, measure) for measure in (cell.noop, cell.by_hand, cell.name))
            yield *_named(cell), *rates, f"{over} %" if over else ""
        if cell.full.name in figures:
            yield *_named(cell.full), "", "", _figure(figures, cell.full.name), ""


def _named(cell: Cell) -> tuple[str, str]:
    what = f"{cell.what}, {cell.marks:,} marks before" if cell.marks else cell.what
    return what, f"{cell.slots} × {cell.processes}"


def _figure(figures: Figures, measure: str) -> str:
    value = figures.get(measure, {}).get("penstock")
    return "" if value is None else number(value)


def show(console: Console, brokers: Mapping[str, Figures]) -> None:
    """Print one table: figures per broker, then what they had to reach."""
    table = Table("RabbitMQ", "measure", *WHO, title="Penstock's figure / another's in brackets")
    for column in table.columns[2:]:
        column.justify = "right"
    for broker, figures in brokers.items():
        for row in rows(figures):
            table.add_row(broker, *row)
        table.add_section()
    console.print(table)
    console.print(_shown_effects(brokers))
    judged = [(broker, verdict) for broker, figures in brokers.items() for verdict in verdicts(broker, figures)]
    if judged:
        console.print(_judged(judged))


def _shown_effects(brokers: Mapping[str, Figures]) -> Table | str:
    table = Table("RabbitMQ", *_HEAD_OF_EFFECTS)
    for column in table.columns[2:]:
        column.justify = "right"
    for broker, figures in brokers.items():
        for row in effects(figures):
            table.add_row(broker, *row)
    return table if table.rows else ""


def _judged(judged: list[tuple[str, Verdict]]) -> Table:
    table = Table("RabbitMQ", "measure", "target", "is", "")
    for broker, verdict in judged:
        mark = "[green]reached[/]" if verdict.reached else "[red]missed[/]"
        table.add_row(broker, MEASURES[verdict.target.measure].title, verdict.goal(), verdict.text(), mark)
    return table


def page(results: Mapping[str, Any]) -> str:
    """The documentation page for *results*."""
    parts = [_INTRODUCTION, *map(_setting, results["settings"])]
    for broker, figures in results["brokers"].items():
        tables = _figures_table(figures), _effects_table(figures), _targets_table(broker, figures)
        parts += [f"## RabbitMQ {broker}", *filter(None, tables)]
    return "\n\n".join([*parts, _METHOD]) + "\n"


def _setting(setting: Mapping[str, Any]) -> str:
    machine, what = setting["machine"], " and ".join(_GROUPS[group] for group in setting["groups"])
    packages = ", ".join(f"{name} {version}" for name, version in setting["versions"].items())
    return (
        f"**{what[0].upper()}{what[1:]}** were measured on this machine: {machine['processor']}, "
        f"{machine['cores']} cores shared by broker and clients, {machine['memory_gb']} GB, "
        f"{machine['system']}, kernel {machine['kernel']}; {_disk(machine)}"
        f"load average over the last quarter of an hour {machine['load_average']} (a bench alone "
        f"makes about 2: above that the machine had other work, and the figures say little).\n\nVersions: {packages}."
    )


def _disk(machine: Mapping[str, Any]) -> str:
    known = machine.get("fsync_ms")
    return "" if known is None else f"8 KiB are on its disk (fdatasync) after {known} ms; "


def _figures_table(figures: Figures) -> str:
    return _markdown(("measure", *WHO), rows(figures))


def _effects_table(figures: Figures) -> str:
    found = list(effects(figures))
    return _markdown(_HEAD_OF_EFFECTS, iter(found)) if found else ""


def _targets_table(broker: str, figures: Figures) -> str:
    def row(verdict: Verdict) -> tuple[str, ...]:
        title = MEASURES[verdict.target.measure].title
        return title, verdict.goal(), verdict.text(), "reached" if verdict.reached else "**missed**"

    return _markdown(("measure", "target", "is", ""), map(row, verdicts(broker, figures)))


def _markdown(head: tuple[str, ...], body: Iterator[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


_INTRODUCTION = """\
# Benchmarks

*Written by `make bench` from `tests/bench/results.json`; edit neither by hand.*

Penstock beside Pika alone (the driver under it), a C client (the broker's ceiling) and four libraries for background
jobs. Absolute figures belong to the machine and the hour; what counts are the ratios, in brackets: Penstock's figure
divided by the other's, taken in the same run.

Repeat it with `make bench`, or a part of it with `.venv/bin/python -m tests.bench --only work_async --brokers 3.10`."""

_METHOD = """\
## How it is measured

- Every broker is a private single node; queues are quorum queues, messages persistent, publishes confirmed, a job's
  arguments 200 bytes of JSON; the same number of messages for everyone; one process each; every asyncio entrant runs
  on uvloop; no result back ends.
- Entrants take turns, round by round; the figure is the median of the rounds.
- *publish*: from the first publish until the last confirm. Pipelined means up to 1,000 unconfirmed; Celery and
  Dramatiq have no such call, so there they run 16 threads. *One by one*: each confirmed before the next; Penstock's
  16 threads share one `Publisher`, the others' have a connection each.
  Pika publishes to a topic exchange and a queue with the arguments of a work queue, as Penstock does: to the default
  exchange and a plain queue the broker itself takes more a second.
- *work*: from the first to the last finished of the queued jobs, each one's message copied from one that the entrant's
  own client published. Penstock's handlers have typed arguments, a deadline, middleware and a metrics subscriber; Pika
  has a task and an ack per job and nothing else. After each run the queue must be empty: who has not acked has no
  figure.
- *jobs in threads*: Penstock's default 16, Dramatiq's default 8, FastStream's default 40, Celery and Taskiq 8. Where
  jobs run on the loop elsewhere, Dramatiq has one thread and Celery its solo pool: what serves no-op jobs best.
- *publish to handler*: 200 jobs a second from a second process, read on the machine's monotonic clock, the first
  second left out.
- *idle worker*: proportional set size of the process tree that the entrant's own command starts, 3 s after it consumes,
  byte code compiled.
- *slots busy*: time that handlers ran divided by time × slots, jobs of 0 to 20 ms.
- *C*: librabbitmq, acks one by one.
- *effects once*: the effect is `UPDATE accounts SET balance = balance + 1 WHERE id = …`, over 1,000 accounts. Each
  process is a worker of so many slots. PostgreSQL and SQLite are as durable as installed or more
  (`synchronous_commit = on`, `synchronous = FULL`), Redis writes its append-only file `everysec`. All that stands in a
  row, and the row beside many marks, is measured together: the no-op worker, the transactions by hand and the worker
  with the store have databases and queues of their own and work in turn, 0.6 s each (the no-op 0.3), while the others
  are stopped (`SIGSTOP`); the first 0.1 s of a turn is not counted. Rates and overhead are medians of the laps. At the
  end accounts and marks must add up to the jobs.
- *by hand*: the same without Penstock and without a broker, as many tasks as slots. PostgreSQL: psycopg and its pool;
  `BEGIN`, `INSERT` of a mark `ON CONFLICT DO NOTHING`, `UPDATE`, `COMMIT`; for a lease an `INSERT` and an `UPDATE` by
  themselves. SQLite: the same in one thread beside the loop, or on the loop, whichever is faster. Redis: `SET NX PX`
  and `SET XX EX`. Ids are UUIDv7 as Penstock's.
- *overhead*: (seconds per job with the store − seconds per no-op job) ÷ seconds per transaction by hand − 1.
- *outbox relayed*: one relay, one kind; rows a second that are published, confirmed and marked.
- *schedules*: `penstock scheduler FILE`, logging a line for each tick. *Published after*: from the instant to the last
  confirm. *From start to lead*: from the start of the process until it leads. *That wait*: processor time over 65 s in
  which nothing is due and the state is written once, divided by them. *Late*: from a tick's instant to its confirm,
  over 200 s. *Taken after*: from the swap of the file until the log says so, the mean of five. *Followed after*: from
  SIGKILL until the next one's log says that it leads, with two that stand by."""
