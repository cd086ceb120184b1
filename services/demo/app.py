"""The demo command: a run with an account at its end, or the same system kept running."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Sequence

from penstock import PenstockError
from penstock.connect import STORE_VARIABLE
from services.demo import monitoring, order_book
from services.demo.accounting import Account, piles
from services.demo.acts import Acts, Plan
from services.demo.door import at_door
from services.demo.effects import Book
from services.demo.errands import Errands
from services.demo.eye import opened
from services.demo.monitoring import Monitoring, Watched
from services.demo.places import BrokerPlace, RunPlace, broker
from services.demo.run import Run
from services.demo.screen import Screen, screen
from services.demo.sink import REFUSED_DOMAIN
from services.demo.system import System, running

LOST = STOPPED = UNEXPECTED = 1

_FAULTS_SHOWN = 5

_TRY = """\
The system is up; Ctrl-C ends it. In another terminal:

  {environment}
  .venv/bin/python -m services.orders {orders}
  curl {door}/v1/jobs/email.send -H 'Content-Type: application/json' -d '{welcome}'
  .venv/bin/penstock publish email.send '{refused}'
  .venv/bin/penstock publish credit.add '{credit}'
  .venv/bin/penstock dead list
  .venv/bin/penstock schedule list --file {schedules}

HTTP door      {door}/docs
Management UI  {management}   user {user}, password {password}
Alerts         {alerts}
Mails          {mails}
Reports        {reports}
Credits        {store}
Logs           {logs}"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo the command line asks for. The account, when there is one, is the last line that is printed."""
    told = _parser().parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        with screen() as shown, broker(shown.say) as place:
            found = asyncio.run(
                _keep_up(place, shown, told.pace)
                if told.up
                else _play(place, Plan(told.jobs, told.outage, told.patience), shown)
            )
    except PenstockError as error:
        return _failed(str(error), error.exit_code)
    except OSError as error:
        return _failed(f"{error.filename or type(error).__name__}: {error.strerror or error}", UNEXPECTED)
    except KeyboardInterrupt:
        return 0 if told.up else _failed("stopped", STOPPED)
    print(found.line, flush=True)  # noqa: T201 - the command's answer
    return 0 if found.right else LOST


async def _play(place: BrokerPlace, plan: Plan, shown: Screen) -> Account:
    """Set everything up, play *plan* and show what became of every job. Raises ``PenstockError``."""
    files = RunPlace.fresh()
    shown.say(f"run {files.run} on {place.words}; logs in {files.folder}")
    order_book.write(files.orders, plan.orders, files.run)
    async with running(place, files) as system, opened(place.url) as eye, at_door(system.door) as door:
        await system.start(eye, door, plan.outage)
        shown.say(f"workers of {system.crowd} are ready")
        shown.say(f"the HTTP door at {door.url}, the relay of the outbox and two schedulers are ready")
        if plan.outage:
            shown.say(f"the mail server will answer 451 (not now, try again later) for {plan.outage:g} s")
        mails, receipts = Book(files.book, files.run), Book(files.receipts, files.run)
        errands = Errands(files.run, files.store, files.media / "output")
        acts = Acts(plan, files, place.url, system, eye, door, shown, mails, receipts, errands)
        found, dead = await Run(acts).play()
    shown.say(f"gave up after {plan.patience:g} s" if found.lost else "every job has ended, the workers have stopped")
    shown.table(piles(dead))
    shown.say("they stay in their queues: `make up`, and the lines it prints, show them again")
    _tell(found, files, shown)
    return found


def _tell(found: Account, files: RunPlace, shown: Screen) -> None:
    if found.ticks is not None:
        shown.say(found.ticks.line)
    if again := found.doubled - found.credits.doubled:
        shown.say(f"{again} doubled: done again, because a worker was killed after the work and before it could say so")
    if found.credits.doubled:
        shown.say(f"{found.credits.doubled} entries of credits are doubled, which must never be")
    for fault in found.faults[:_FAULTS_SHOWN]:
        shown.say(f"not as it should be: {fault}")
    missed = found.ticks.missed if found.ticks is not None else ()
    for name, ids in (
        ("lost", found.lost),
        ("never published, but found", found.strange),
        ("ticks of the schedule missed", missed),
    ):
        if ids:
            shown.say(f"{len(ids)} {name}, for example {', '.join(ids[:3])}; see the logs in {files.folder}")


async def _keep_up(place: BrokerPlace, shown: Screen, pace: float) -> Account:
    """Keep the system running until Ctrl-C, with alerts. Raises ``MemberDied`` when a part of it does not."""
    files = RunPlace.fresh()
    order_book.write(files.orders, 50, files.run)
    async with running(place, files) as system, opened(place.url) as eye, at_door(system.door) as door:
        system.show_metrics()
        await system.start(eye, door, 0.0)
        shown.say(_try(place, files, system.door, await _watch(place, files, system, pace)))
        while True:
            system.crew.check()
            await asyncio.sleep(1)


async def _watch(place: BrokerPlace, files: RunPlace, system: System, pace: float) -> Monitoring | None:
    """Prometheus and Alertmanager on the system, whose mails come to its mail server; None where they are missing."""
    if monitoring.installed() is None:
        return None
    processes = [f"127.0.0.1:{port}" for port in system.metrics_ports.values()]
    watched = Watched(processes, place.metrics, f"127.0.0.1:{system.smtp_port}", pace=pace)
    return await monitoring.start(system.crew, files.folder / "monitoring", watched)


def _try(place: BrokerPlace, files: RunPlace, door: str, watching: Monitoring | None) -> str:
    variables = {
        **place.environment,
        "DEMO_MAILS": str(files.book),
        "ORDERS_SPOOL_DIR": str(files.sources),
        "ORDERS_DOOR": door,
        STORE_VARIABLE: files.store_url,
    }
    return _TRY.format(
        environment="export " + " ".join(f"{name}={value}" for name, value in variables.items()),
        orders=files.orders,
        door=door,
        schedules=files.schedules,
        welcome=_welcome("ada@example.org"),
        refused=_welcome(f"nobody@{REFUSED_DOMAIN}"),
        management=place.management,
        alerts="none: prometheus and prometheus-alertmanager are not installed"
        if watching is None
        else f"{watching.prometheus}/alerts, and among the mails; try the game day in docs/runbook.md",
        user=place.url.user,
        password=place.password,
        mails=files.book,
        credit=json.dumps({"user": 123, "amount": 5}),
        reports=files.outputs,
        store=files.store,
        logs=files.folder,
    )


def _welcome(address: str) -> str:
    return json.dumps({"to": address, "template": "welcome", "values": {"name": "Ada"}})


def _failed(words: str, code: int) -> int:
    print(f"demo: {words}", file=sys.stderr, flush=True)  # noqa: T201 - the command's answer
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m services.demo",
        description="Run the whole system with real jobs and honest trouble, and account for every job.",
        epilog="exit codes: 0 every job accounted for · 1 some are not, or stopped · 3 broker unreachable · 4 refused",
    )
    parser.add_argument("--up", action="store_true", help="keep the system running until Ctrl-C instead")
    parser.add_argument("--pace", type=_pace, default=1.0, help="with --up: alerts come so many times sooner")
    parser.add_argument("--jobs", type=_jobs, default=2000, help="jobs from the orders service (default: 2000)")
    parser.add_argument("--outage", type=float, default=8.0, help="seconds of 451 from the mail server (default: 8)")
    parser.add_argument("--patience", type=float, default=65.0, help="seconds until a run gives up (default: 65)")
    return parser


def _pace(text: str) -> float:
    if not text.isdecimal() or not 1 <= int(text) <= 60:
        raise argparse.ArgumentTypeError("a whole number from 1 to 60")
    return float(text)


def _jobs(text: str) -> int:
    least = 10 * len(order_book.REGIONS)
    if not text.isdecimal() or not least <= int(text) <= 100_000:
        raise argparse.ArgumentTypeError(f"a whole number from {least} to 100000")
    return int(text)
