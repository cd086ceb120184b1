"""What the commands around schedules share: the file, the schedulers' state on the broker, and how instants look."""

from __future__ import annotations

import asyncio
import getpass
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar  # coroutines of any kind

import orjson
import typer

from penstock import logs
from penstock.connect import broker_for
from penstock.errors import UsageError
from penstock.events import Events
from penstock.message import Delivery
from penstock.ports import Link
from penstock.reconnecting import Reconnecting
from penstock.schedules.model import Schedule, utc_text
from penstock.schedules.reading import read_schedules
from penstock.schedules.state import Command, State, read_state
from penstock.schedules.zones import zone
from penstock.sending import Sender
from penstock.settings import LogLevel, Settings
from penstock.topology.form import near_or_all
from penstock.topology.names import COMMAND_KEY, SCHEDULER, SCHEDULER_VIEW

T = TypeVar("T")

FILE = Path("schedules.yaml")
File = Annotated[Path, typer.Option("--file", metavar="FILE", help="The schedules.")]
By = Annotated[str | None, typer.Option("--by", metavar="WHO", help="Who asks (the login's name).")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule.", show_default=False)]

#: Seconds to wait for the state where it lies, and where none does, for another may have it in hand.
_COMES, _COMES_BACK = 10.0, 1.0
#: Seconds for the schedulers to obey, and how a command ends when none has.
_OBEYED = 5.0
NOT_YET = 6
_CONFIRM = 10.0


def named(file: Path, name: str) -> Schedule:
    """The schedule called *name* in *file*. Raises ``ConfigError``, and ``UsageError`` with the name that is near."""
    found = {schedule.name: schedule for schedule in read_schedules(file)}
    require((name,), found, file)
    return found[name]


def require(names: Collection[str], known: Collection[str], file: Path) -> None:
    """Raise ``UsageError`` for the first of *names* that is not *known*."""
    for name in names:
        if name not in known:
            raise UsageError(f"{file} has no schedule {name!r:.60}{near_or_all(name, known)}")


def on_broker(settings: Settings, work: Callable[[Reconnecting], Coroutine[Any, Any, T]]) -> T:
    """Do *work* with a connection. Raises ``BrokerError``."""
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


async def seen(links: Reconnecting) -> State | None:
    """The newest state that lies where anybody may look; it stays there."""
    link: Link = await links.link()
    patience = _COMES if await link.depth(SCHEDULER_VIEW) else _COMES_BACK
    came: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()

    def on_delivery(delivery: Delivery) -> None:
        if not came.done():
            came.set_result(delivery)

    subscription = await link.consume(SCHEDULER_VIEW, 1, on_delivery, "penstock schedule")
    try:
        async with asyncio.timeout(patience):
            return read_state((await came).message.body)
    except TimeoutError:
        return None
    finally:
        await subscription.close()  # which gives it back


def asked(settings: Settings, command: Command, obeyed: Callable[[State], bool]) -> bool:
    """Ask the schedulers for something; whether one has *obeyed* within 5 s, as its state tells.

    If not, the first that runs will. Raises ``BrokerError``.
    """

    async def ask(links: Reconnecting) -> bool:
        await Sender(links).send(command.message(), SCHEDULER, COMMAND_KEY, deadline())
        until = time.monotonic() + _OBEYED
        while time.monotonic() < until:
            state = await seen(links)
            if state is not None and obeyed(state):
                return True
            await asyncio.sleep(0.1)
        return False

    return on_broker(settings, ask)


def login() -> str:
    """Who is logged in; a user of a container has often no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"


def deadline() -> float:
    """Until when (loop time) the broker has to confirm what is published now."""
    return asyncio.get_running_loop().time() + _CONFIRM


def now_ms() -> int:
    """This machine's clock."""
    return time.time_ns() // 1_000_000


def local_text(schedule: Schedule, instant: int) -> str:
    """*instant* on the clocks of the schedule's zone, with their offset: two 02:30 of one night differ by it."""
    return zone(schedule.zone).local(instant).isoformat(" ")


def both(schedule: Schedule, instant: int) -> Mapping[str, str]:
    """*instant* in the schedule's zone and in UTC, for machines."""
    return {"local": zone(schedule.zone).local(instant).isoformat(), "utc": utc_text(instant)}


def shown_json(value: object) -> None:
    """Print *value* as JSON."""
    typer.echo(orjson.dumps(value).decode())
