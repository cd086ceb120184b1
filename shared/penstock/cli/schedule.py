"""``penstock schedule``: what comes by the clock and what came, pausing, and a tick out of turn."""

from __future__ import annotations

import asyncio
import getpass
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar  # coroutines of any kind

import orjson
import typer

from penstock import logs
from penstock.cli.storing import AsJson, show_columns
from penstock.clock import SystemClock
from penstock.connect import broker_for
from penstock.errors import UsageError
from penstock.events import Events
from penstock.message import MAX_BODY, Delivery
from penstock.ports import Link
from penstock.printable import printable
from penstock.publishing import Packer
from penstock.reconnecting import Reconnecting
from penstock.schedules.model import Schedule, utc_text
from penstock.schedules.reading import read_schedules
from penstock.schedules.state import Command, State, read_state
from penstock.schedules.ticks import tick, tick_headers
from penstock.schedules.zones import zone
from penstock.sending import Sender
from penstock.settings import LogLevel, Settings
from penstock.topology.names import COMMAND_KEY, SCHEDULER, SCHEDULER_VIEW

T = TypeVar("T")

_CONFIRM = 10.0
#: Seconds to wait for the state, which another may be looking at, and for the schedulers to obey.
_LOOK = 1.0
_OBEYED = 5.0
_NOT_YET = 6

_EXAMPLES = """
\b
Examples:
  penstock schedule list                           what came last, what comes next, what is paused
  penstock schedule next purge --count 5
  penstock schedule pause purge --reason "the disk is being moved"
  penstock schedule run purge                      now, out of turn
"""

File = Annotated[Path, typer.Option("--file", metavar="FILE", help="The schedules.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule.", show_default=False)]
_FILE = Path("schedules.yaml")

app = typer.Typer(
    help="Look at schedules, pause them, run one now.",
    epilog=_EXAMPLES,
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
)


@app.command("list")
def list_command(file: File = _FILE, as_json: AsJson = False) -> None:
    """Say what came last, what comes next and what is paused, as the schedulers' state on the broker tells."""
    schedules = read_schedules(file)
    state = _on_broker(_seen)
    rows = [_row(schedule, state) for schedule in schedules]
    if as_json:
        typer.echo(orjson.dumps(rows).decode())
        return
    names = ("schedule", "when", "last", "next", "")
    show_columns(
        names, [tuple(str(row[name]) for name in ("schedule", "when", "last", "next", "note")) for row in rows]
    )
    typer.echo(_leader(state))


@app.command("next")
def next_command(
    name: Name,
    file: File = _FILE,
    count: Annotated[int, typer.Option("--count", metavar="N", min=1, max=1000, help="How many.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Show when a schedule is due next, in its zone and in UTC."""
    schedule = _named(file, name)
    instants = schedule.following(int(time.time()), count)
    local = zone(schedule.zone).local
    rows = [(f"{local(each):%Y-%m-%d %H:%M:%S}", schedule.zone, utc_text(each)) for each in instants]
    if as_json:
        typer.echo(orjson.dumps([utc_text(each) for each in instants]).decode())
    else:
        show_columns(("local", "zone", "UTC"), rows)


@app.command("pause")
def pause_command(
    name: Name,
    file: File = _FILE,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is shown to others.")] = "",
) -> None:
    """Let a schedule tick no more until it is resumed. Exit code 6 when no scheduler has obeyed within 5 s."""
    _named(file, name)
    _ask(Command("pause", name, getpass.getuser(), _now_ms(), reason), lambda state: name in state.paused)


@app.command("resume")
def resume_command(name: Name) -> None:
    """Let a schedule tick again; what fell due meanwhile is not made up for. Exit code 6 as for pause."""
    _ask(Command("resume", name, getpass.getuser(), _now_ms()), lambda state: name not in state.paused)


@app.command("run")
def run_command(name: Name, file: File = _FILE) -> None:
    """Publish a schedule's job now, out of turn, also while it is paused; print its id."""
    schedule = _named(file, name)
    new = tick(schedule, int(time.time()))
    new.id = f"{new.id}:by-hand"
    outgoing = Packer(SystemClock(), "penstock-schedule", MAX_BODY, None).pack(new)
    outgoing.message.headers |= tick_headers(schedule)

    async def publish(links: Reconnecting) -> None:
        await Sender(links).send(outgoing.message, outgoing.exchange, outgoing.key, _deadline())

    _on_broker(publish)
    typer.echo(outgoing.receipt.id)


def _ask(command: Command, obeyed: Callable[[State], bool]) -> None:
    async def ask(links: Reconnecting) -> bool:
        await Sender(links).send(command.message(), SCHEDULER, COMMAND_KEY, _deadline())
        until = time.monotonic() + _OBEYED
        while time.monotonic() < until:
            state = await _seen(links)
            if state is not None and state.written >= command.at and obeyed(state):
                return True
            await asyncio.sleep(0.1)
        return False

    done = {"pause": "paused", "resume": "resumed"}[command.command]
    if not _on_broker(ask):
        typer.echo(f"{command.name} will be {done} as soon as a scheduler runs: none has obeyed yet")
        raise typer.Exit(_NOT_YET)
    typer.echo(f"{command.name} is {done}")


def _on_broker(work: Callable[[Reconnecting], Coroutine[Any, Any, T]]) -> T:
    """Do *work* with a connection. Raises ``BrokerError``."""
    settings = Settings.load()
    logs.setup(settings, default=LogLevel.WARNING)

    async def run() -> T:
        async with _linked(settings) as links:
            return await work(links)

    return asyncio.run(run())


@asynccontextmanager
async def _linked(settings: Settings) -> AsyncIterator[Reconnecting]:
    broker = broker_for(settings.broker_url)
    links = Reconnecting(broker, "penstock schedule", Events(), connect_timeout=settings.connect_timeout)
    try:
        await links.link()
        yield links
    finally:
        await links.close()


async def _seen(links: Reconnecting) -> State | None:
    """The newest state that lies where anybody may look; it stays there."""
    link: Link = await links.link()
    came: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()

    def on_delivery(delivery: Delivery) -> None:
        if not came.done():
            came.set_result(delivery)

    subscription = await link.consume(SCHEDULER_VIEW, 1, on_delivery, "penstock schedule")
    try:
        async with asyncio.timeout(_LOOK):
            return read_state((await came).message.body)
    except TimeoutError:
        return None
    finally:
        await subscription.close()  # which gives it back


def _row(schedule: Schedule, state: State | None) -> dict[str, Any]:
    paused = state.paused.get(schedule.name) if state else None
    last = schedule.before(state.through + 1) if state else None
    following = schedule.after(int(time.time())) if schedule.enabled and paused is None else None
    note = "" if schedule.enabled else "disabled"
    if paused is not None:
        note = printable(f"paused by {paused.by} at {utc_text(paused.at // 1000)}: {paused.reason}")
    owed = len(state.owed.get(schedule.name, ())) if state else 0
    return {
        "schedule": schedule.name,
        "when": schedule.trigger.words,
        "last": utc_text(last) if last is not None else "-",
        "next": utc_text(following) if following is not None else "-",
        "note": note or (f"{owed} refused, tried again" if owed else ""),
    }


def _leader(state: State | None) -> str:
    if state is None:
        return "no state of schedulers on the broker: none has run yet"
    age = max(0, (_now_ms() - state.written) // 1000)
    return f"led by {printable(state.leader)}, term {state.term}; its last word is {age} s old"


def _named(file: Path, name: str) -> Schedule:
    found = {schedule.name: schedule for schedule in read_schedules(file)}
    if name not in found:
        raise UsageError(f"{file} has no schedule {name!r:.60}; it has {', '.join(found) or 'none'}")
    return found[name]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _deadline() -> float:
    return asyncio.get_running_loop().time() + _CONFIRM
