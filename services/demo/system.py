"""The system that the demo runs: topology, store, the HTTP door, schedulers, a relay, and workers of every family."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from penstock import PenstockError
from penstock.applying import apply
from penstock.delay import level_queue
from penstock.testing.free_ports import free_ports
from penstock.topology.names import SCHEDULER, UNROUTED, dead_queue, work_queue
from penstock.topology.reading import DEFAULT_FILE, read_spec
from services.demo import pictures, shop
from services.demo.crew import ROOT, Crew, Member
from services.demo.door import Door
from services.demo.eye import Eye
from services.demo.heartbeat import Heartbeat
from services.demo.places import BrokerPlace, RunPlace


@dataclass(frozen=True, slots=True)
class Family:
    """Workers of one queue: what they are called, where they work, and how many of them there are."""

    name: str
    queue: str
    count: int

    @property
    def target(self) -> str:
        """What ``penstock worker`` is told."""
        return f"services.{self.name}.app:build"


MAILER, CREDITS = Family("mailer", "email", 2), Family("credits", "credits", 2)
MEDIA = Family("media", "media", 1)
FAMILIES = (
    MAILER,
    CREDITS,
    Family("reports", "reports", 1),
    Family("sync", "sync", 1),
    Family("janitor", "maintenance", 1),
    MEDIA,
)
#: Only where its queue is: it takes a copy of every job, and would grow where nobody runs it.
AUDIT = Family("audit", "audit", 1)
AUDITED = ROOT / "rabbitmq/topology.audit.yaml"

#: Where a job waits that was put off for some seconds.
SHORT_WAITS = tuple(level_queue(level) for level in range(3))

#: Where the jobs of the demo can end. Copies that the audit cannot read are no jobs of their own.
DEAD = (*(dead_queue(family.queue) for family in FAMILIES), UNROUTED)

#: How long the workers may take until they consume (seconds).
READY_WITHIN = 90.0

#: How long one mail takes the sink: enough for a crash to happen in the middle of some.
_THINK = "0.02"

#: Seconds between two looks at who leads the schedulers.
_LOOK_EVERY = 0.1


class NotReady(PenstockError):
    """The system did not come up in time."""


class System:
    """The processes that work for the demo."""

    def __init__(self, crew: Crew, place: RunPlace) -> None:
        self.crew = crew
        self._place = place
        #: Those that work: the media service needs ffmpeg, and the audit its queue.
        self.families = tuple(each for each in FAMILIES if each is not MEDIA or pictures.can_be_made())
        self._workers: dict[Family, list[Member]] = {}
        self._intake: list[Member] = []
        self.schedulers: list[Member] = []
        #: What the schedulers tick by; None when schedulers of somebody else lead on this broker.
        self.heartbeat: Heartbeat | None = None
        self.smtp_port = 0
        [self._door_port] = free_ports(1)
        #: Where each process shows its metrics, by its name; empty unless asked for by ``show_metrics``.
        self.metrics_ports: dict[str, int] = {}
        self._shows_metrics = False

    @property
    def door(self) -> str:
        """The URL of the HTTP door."""
        return f"http://127.0.0.1:{self._door_port}"

    @property
    def crowd(self) -> str:
        """Whose workers there are, in words."""
        *most, last = (
            each.name if each.count == 1 else f"{each.name} ({each.count} processes)" for each in self.families
        )
        return f"{', '.join(most)} and {last}"

    @property
    def work(self) -> Sequence[str]:
        """The queues in which jobs are."""
        return [work_queue(family.queue) for family in self.families]

    def show_metrics(self) -> None:
        """Let the processes that are started from now on show metrics, each on a port that it keeps."""
        self._shows_metrics = True

    async def start(self, eye: Eye, door: Door, outage: float) -> None:
        """Start everything and return when every worker consumes, a scheduler leads and the door is open; the mail
        server will answer 451 for *outage* seconds.

        Raises ``MemberDied``, ``NotReady``.
        """
        self.smtp_port = await self._serve("sink", str(self._place.book), "--outage", str(outage), "--think", _THINK)
        shop.sources(self._place.sources_of_sync, await self._serve("shop"))
        if await eye.has(work_queue(AUDIT.queue)):
            self.families = (*self.families, AUDIT)
        await self._make_tables()
        await self._start_schedulers(eye)
        before = [await eye.consumers(queue) for queue in self.work]
        self._intake = [await self._start_intake(1)]
        await self._penstock("relay-1", "outbox", "run")
        for family in self.families:
            self._workers[family] = [await self._start_worker(family, n + 1) for n in range(family.count)]
        await self._ready(eye, before, door)

    async def crash_a_worker(self, family: Family) -> tuple[Member, Member]:
        """Kill the first worker of *family* with SIGKILL and start it again: the one that was, the one that is."""
        workers = self._workers[family]
        return await self._crash(workers, workers[0], lambda number: self._start_worker(family, number))

    async def crash_the_door(self) -> tuple[Member, Member]:
        """As ``crash_a_worker``, for the intake, which so forgets what it has taken."""
        return await self._crash(self._intake, self._intake[0], self._start_intake)

    async def crash_the_leading_scheduler(self, eye: Eye) -> tuple[Member, Member]:
        """As ``crash_a_worker``, for the scheduler that leads."""
        while (leader := await self._leader(eye)) is None:  # noqa: ASYNC110 - other processes lead
            await asyncio.sleep(_LOOK_EVERY)
        return await self._crash(self.schedulers, leader, self._start_scheduler)

    async def stop_workers(self, within: float) -> None:
        """Let the workers end what they do, and stop them."""
        await self.crew.stop(*(worker for workers in self._workers.values() for worker in workers), within=within)

    async def stop_schedulers(self, within: float) -> None:
        """Let the schedulers end their move, and stop them: nothing more comes by the clock."""
        await self.crew.stop(*self.schedulers, within=within)

    async def _ready(self, eye: Eye, before: list[int], door: Door) -> None:
        until = time.monotonic() + READY_WITHIN
        while not (await self._consuming(eye, before) and await self._led(eye) and await door.open()):
            self.crew.check()
            if time.monotonic() > until:
                raise NotReady(f"not everything was ready within {READY_WITHIN:g} s: see {self._place.folder}")
            await asyncio.sleep(_LOOK_EVERY)
        if self.heartbeat is not None:
            self.heartbeat = replace(self.heartbeat, since=int(time.time()) + 1)

    async def _leader(self, eye: Eye) -> Member | None:
        """Which of the schedulers has the last word on the broker; None when it is none of those that run."""
        state = await eye.schedulers_state()
        return next((each for each in self.schedulers if state is not None and f":{each.pid}-" in state.leader), None)

    async def _crash(
        self, members: list[Member], victim: Member, start: Callable[[int], Awaitable[Member]]
    ) -> tuple[Member, Member]:
        place = members.index(victim)
        await self.crew.kill(victim)
        members[place] = await start(place + 1)
        return victim, members[place]

    async def _make_tables(self) -> None:
        for service in ("credits", "sync", "audit"):
            code, log = await self.crew.run(f"migrate-{service}", "-m", f"services.{service}", "migrate")
            if code != 0:
                raise NotReady(f"the tables of {service} could not be made (exit code {code}): see {log}")

    async def _serve(self, name: str, *options: str) -> int:
        """Start a server of the demo's own on a free port, which is returned."""
        with socket.create_server(("127.0.0.1", 0), backlog=200) as listening:
            program = ("-m", f"services.demo.{name}", *options, "--fd", str(listening.fileno()))
            await self.crew.start(name, *program, inherit=[listening.fileno()])
            return int(listening.getsockname()[1])

    async def _start_schedulers(self, eye: Eye) -> None:
        if await eye.consumers(SCHEDULER):
            return
        self.heartbeat = Heartbeat(self._place.run, int(time.time()) + 1)
        self.heartbeat.write(self._place.schedules)
        self.schedulers = [await self._start_scheduler(1), await self._start_scheduler(2)]

    async def _start_scheduler(self, number: int) -> Member:
        return await self._penstock(f"scheduler-{number}", "scheduler", str(self._place.schedules))

    async def _start_intake(self, number: int) -> Member:
        name = f"intake-{number}"
        environment = {"INTAKE_PORT": str(self._door_port), **self._metrics(name)}
        return await self.crew.start(name, "-m", "services.intake", environment=environment)

    async def _start_worker(self, family: Family, number: int) -> Member:
        smtp = {"MAILER_SMTP_URL": f"smtp://127.0.0.1:{self.smtp_port}"} if family is MAILER else None
        return await self._penstock(f"{family.name}-{number}", "worker", family.target, more=smtp)

    async def _penstock(self, name: str, *arguments: str, more: Mapping[str, str] | None = None) -> Member:
        penstock = str(Path(sys.executable).with_name("penstock"))
        return await self.crew.start(name, penstock, *arguments, environment={**(more or {}), **self._metrics(name)})

    def _metrics(self, name: str) -> dict[str, str]:
        if not self._shows_metrics:
            return {}
        if name not in self.metrics_ports:
            [self.metrics_ports[name]] = free_ports(1)
        return {"PENSTOCK_METRICS_PORT": str(self.metrics_ports[name])}

    async def _led(self, eye: Eye) -> bool:
        return self.heartbeat is None or await self._leader(eye) is not None

    async def _consuming(self, eye: Eye, before: list[int]) -> bool:
        found = [await eye.consumers(queue) for queue in self.work]
        there = zip(found, before, self.families, strict=True)
        return all(now >= others + family.count for now, others, family in there)


def worker_settings(place: RunPlace) -> dict[str, str]:
    """The environment of the demo's workers: impatient ones, so that the demo ends soon."""
    policy = {"RETRY_FIRST": "1", "RETRY_FACTOR": "2", "RETRY_CAP": "4"}
    grace = {"UNKNOWN_KIND_GRACE": "2"}
    return {
        **{f"MAILER_{name}": value for name, value in (policy | grace).items()},
        **{f"REPORTS_{name}": value for name, value in (policy | grace).items()},
        **{f"SYNC_{name}": value for name, value in policy.items()},
        "SYNC_SOURCES": str(place.sources_of_sync),
        "JANITOR_RULES": str(place.rules),
        "MEDIA_SOURCE_DIR": str(place.media / "source"),
        "MEDIA_OUTPUT_DIR": str(place.media / "output"),
        "REPORTS_SOURCE_DIR": str(place.sources),
        "REPORTS_OUTPUT_DIR": str(place.outputs),
        "ORDERS_SPOOL_DIR": str(place.sources),
        "PENSTOCK_TOPOLOGY": str(AUDITED),
        "PENSTOCK_STORE_URL": place.store_url,
        "PENSTOCK_STORE_LEASE": "5",
        "PENSTOCK_DRAIN_TIMEOUT": "8",
        "PENSTOCK_LOG_FORMAT": "json",
    }


@asynccontextmanager
async def running(broker: BrokerPlace, place: RunPlace) -> AsyncIterator[System]:
    """The system, to be started; whatever was started has ended after the block.

    Applies the topology. Raises ``BrokerError``, ``ConfigError``.
    """
    topology = AUDITED if broker.private else ROOT / DEFAULT_FILE
    await apply(broker.url, read_spec(topology))
    place.prepare()
    async with Crew(place.folder, worker_settings(place) | dict(broker.environment)) as crew:
        yield System(crew, place)
