"""``penstock status`` and ``penstock queues``: what waits, runs and fails, and where a rule would fire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any  # facts as JSON

import orjson
import typer
from rich.console import Console
from rich.text import Text

from penstock.cli.screens import Cell, on_management, plain, screen, seconds, table, told
from penstock.cli.storing import AsJson
from penstock.overview import judging
from penstock.overview.model import Age, Overview, QueueState, Share
from penstock.overview.reading import MOST, overview
from penstock.overview.scrapes import ask, targets
from penstock.printable import printable
from penstock.settings import Settings

_NAMES = ("QUEUE", "READY", "RUNNING", "IN/S", "OUT/S", "WORKERS", "OLDEST", "DIED", "FAILED", "DEAD", "WHAT IS WRONG")
_NUMBERS = _NAMES[1:-1]

#: Lines of a screen that are not queues.
_AROUND = 8

_MEANING = """
\b
READY waits, RUNNING is in a worker's hands, OLDEST is how long the first has waited (reckoned from what was published
since), DIED the share of deliveries that ended as dead letters in the last 5 minutes, FAILED the share of attempts that
failed since the workers started, which takes PENSTOCK_METRICS_TARGETS (host:port of workers, by commas).
Red is what an alarm fires for, yellow what will if it lasts.
"""

app = typer.Typer(rich_markup_mode=None, add_completion=False)
queues_app = typer.Typer(rich_markup_mode=None, add_completion=False)

Targets = Annotated[
    str | None,
    typer.Option("--metrics-targets", metavar="HOST:PORT,…", help="Workers to ask (PENSTOCK_METRICS_TARGETS)."),
]


@app.command("status", epilog=_MEANING)
def status(metrics_targets: Targets = None, as_json: AsJson = False) -> None:
    """Show on one screen what waits, runs and fails, the queues that need a look first."""
    found = _overview(metrics_targets, MOST)
    if as_json:
        typer.echo(orjson.dumps(_all_plain(found)).decode())
        return
    console = screen()
    _head(console, found)
    _queues(console, _that_fit(console, found))
    _foot(console, found)


@queues_app.command("queues", epilog=_MEANING)
def queues(metrics_targets: Targets = None, as_json: AsJson = False) -> None:
    """Show every work queue, as status does for those that need a look."""
    found = _overview(metrics_targets, None)
    if as_json:
        typer.echo(orjson.dumps([_plain(queue) for queue in found.queues]).decode())
        return
    _queues(screen(), sorted(found.queues, key=lambda queue: queue.name))


def _overview(metrics_targets: str | None, most: int | None) -> Overview:
    settings = Settings.load(metrics_targets=metrics_targets)
    processes = ask(targets(settings.metrics_targets))
    with on_management(settings) as management:
        return overview(management, processes, most)


def _head(console: Console, found: Overview) -> None:
    nodes = "" if found.broker.nodes is None else f", {found.broker.nodes} node{'s' if found.broker.nodes > 1 else ''}"
    console.print(Text(f"RabbitMQ {found.broker.version}{nodes}  ") + (told(judging.of_all(found)) or Text("no alarm")))


def _that_fit(console: Console, found: Overview) -> Sequence[QueueState]:
    """Those with something wrong first; no more than the terminal has lines for."""
    ordered = sorted(found.queues, key=_urgency)
    return ordered[: max(1, console.height - _AROUND)] if console.is_terminal else ordered


def _urgency(queue: QueueState) -> tuple[int, int, str]:
    troubles = judging.of_queue(queue)
    return (0 if any(trouble.firing for trouble in troubles) else 1 if troubles else 2, -queue.jobs, queue.name)


def _queues(console: Console, queues: Sequence[QueueState]) -> None:
    table(console, _NAMES, [_row(queue) for queue in queues], _NUMBERS)


def _row(queue: QueueState) -> Sequence[Cell]:
    troubles = judging.of_queue(queue)
    style = "bold red" if any(trouble.firing for trouble in troubles) else "yellow" if troubles else ""
    return (
        Text(printable(queue.name), style=style),
        str(queue.ready),
        str(queue.running),
        _rate(queue.rate_in),
        _rate(queue.rate_out),
        str(queue.consumers),
        _age(queue.oldest),
        _percent(queue.died),
        _percent(_together(queue)),
        str(queue.dead),
        told(troubles),
    )


def _foot(console: Console, found: Overview) -> None:
    shown = len(_that_fit(console, found))
    more = found.quiet + len(found.queues) - shown
    if more:
        console.print(f"and {more} more queues that hold less: penstock queues")
    waiting = [f"{level.wait} {level.waiting}" for level in found.levels if level.waiting]
    console.print(f"later   {'  '.join(waiting) or 'nothing'} (retries, snoozes, delayed jobs, by level)")
    for level in found.levels:
        if troubles := judging.of_level(level):
            console.print(Text(f"  {level.name}: ") + told(troubles))
    if found.processes.asked:
        answered = found.processes.asked - len(found.processes.silent)
        console.print(f"asked   {answered} of {found.processes.asked} processes answered for their metrics")


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.1f}" if rate < 100 else f"{rate:.0f}"


def _age(age: Age | None) -> str:
    return "-" if age is None else f"{'>' if age.beyond else '~'}{seconds(age.seconds)}"


def _percent(share: Share | None) -> str:
    value = share.value if share else None
    return "-" if value is None else f"{100 * value:.1f}%"


def _together(queue: QueueState) -> Share | None:
    """The attempts of all kinds."""
    shares = queue.failed.values()
    return Share(sum(s.count for s in shares), sum(s.of for s in shares)) if shares else None


def _all_plain(found: Overview) -> dict[str, Any]:
    broker, processes = found.broker, found.processes
    return {
        "broker": {"version": broker.version, "nodes": broker.nodes},
        "troubles": [plain(trouble) for trouble in judging.of_all(found)],
        "queues": [_plain(queue) for queue in sorted(found.queues, key=_urgency)],
        "quiet_queues": found.quiet,
        "levels": [
            {
                "queue": level.name,
                "waiting": level.waiting,
                "stuck": level.stuck,
                "troubles": [plain(trouble) for trouble in judging.of_level(level)],
            }
            for level in found.levels
        ],
        "unrouted": found.unrouted,
        "processes": {"asked": processes.asked, "silent": dict(processes.silent)},
    }


def _plain(queue: QueueState) -> dict[str, Any]:
    oldest = queue.oldest
    return {
        "queue": queue.name,
        "ready": queue.ready,
        "running": queue.running,
        "stuck": queue.stuck,
        "dead": queue.dead,
        "consumers": queue.consumers,
        "in_per_second": queue.rate_in,
        "out_per_second": queue.rate_out,
        "oldest_seconds": None if oldest is None else round(oldest.seconds, 1),
        "oldest_is_at_least": oldest is not None and oldest.beyond,
        "died": _plain_share(queue.died),
        "failed": {kind: _plain_share(share) for kind, share in queue.failed.items()},
        "troubles": [plain(trouble) for trouble in judging.of_queue(queue)],
    }


def _plain_share(share: Share | None) -> dict[str, Any] | None:
    return None if share is None else {"count": share.count, "of": share.of, "share": share.value}
