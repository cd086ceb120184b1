"""The system that the demo runs: topology, store, mail server, schedulers, workers for mails, reports and credits."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from penstock import PenstockError
from penstock.applying import apply
from penstock.delay import level_queue
from penstock.testing.broker_files import free_ports
from penstock.topology.names import SCHEDULER, UNROUTED, dead_queue, work_queue
from penstock.topology.reading import DEFAULT_FILE, read_spec
from services.demo.crew import ROOT, Crew, Member
from services.demo.eye import Eye
from services.demo.heartbeat import Heartbeat
from services.demo.places import BrokerPlace, RunPlace

_FAMILIES = ("email", "reports", "credits")
WORK = tuple(work_queue(family) for family in _FAMILIES)

#: Where a job waits that was put off for some seconds.
SHORT_WAITS = tuple(level_queue(level) for level in range(3))

#: Where the jobs of the demo can end.
DEAD = (*(dead_queue(family) for family in _FAMILIES), UNROUTED)

#: How long the workers may take until they consume (seconds).
READY_WITHIN = 30.0

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
        self.mailers: list[Member] = []
        self.reports: list[Member] = []
        self.credits: list[Member] = []
        self.schedulers: list[Member] = []
        #: What the schedulers tick by; None when schedulers of somebody else lead on this broker.
        self.heartbeat: Heartbeat | None = None
        #: Where the mail server listens.
        self.smtp_port = 0
        #: Where each process shows its metrics, by its name; empty unless asked for by ``show_metrics``.
        self.metrics_ports: dict[str, int] = {}
        self._shows_metrics = False

    def show_metrics(self) -> None:
        """Let the processes that are started from now on show metrics, each on a port that it keeps."""
        self._shows_metrics = True

    async def start(self, eye: Eye, outage: float) -> None:
        """Start everything and return when every worker consumes and a scheduler leads; the mail server will answer 451
        for *outage* seconds.

        Raises ``MemberDied``, ``NotReady``.
        """
        with socket.create_server(("127.0.0.1", 0), backlog=200) as listening:
            self.smtp_port = listening.getsockname()[1]
            await self._start_sink(listening, outage)
        await self._make_store()
        await self._start_schedulers(eye)
        before = [await eye.consumers(queue) for queue in WORK]
        self.mailers = [await self._start_mailer(1), await self._start_mailer(2)]
        self.reports = [await self._worker("reports-1", "services.reports.app:build")]
        self.credits = [await self._start_credits(1), await self._start_credits(2)]
        until = time.monotonic() + READY_WITHIN
        while not (await self._consuming(eye, before) and await self._led(eye)):
            self.crew.check()
            if time.monotonic() > until:
                raise NotReady(f"the workers did not consume within {READY_WITHIN:g} s: see {self._place.folder}")
            await asyncio.sleep(_LOOK_EVERY)
        if self.heartbeat is not None:
            self.heartbeat = replace(self.heartbeat, since=int(time.time()) + 1)

    async def crash_a_mailer(self) -> tuple[Member, Member]:
        """Kill the first mailer with SIGKILL and start it again: the one that was, the one that is."""
        return await self._crash(self.mailers, self.mailers[0], self._start_mailer)

    async def crash_a_credits_worker(self) -> tuple[Member, Member]:
        """As ``crash_a_mailer``."""
        return await self._crash(self.credits, self.credits[0], self._start_credits)

    async def crash_the_leading_scheduler(self, eye: Eye) -> tuple[Member, Member]:
        """As ``crash_a_mailer``, for the scheduler that leads."""
        while (leader := await self._leader(eye)) is None:  # noqa: ASYNC110 - other processes lead
            await asyncio.sleep(_LOOK_EVERY)
        return await self._crash(self.schedulers, leader, self._start_scheduler)

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

    async def stop_workers(self, within: float) -> None:
        """Let the workers end what they do, and stop them."""
        await self.crew.stop(*self.mailers, *self.reports, *self.credits, within=within)

    async def stop_schedulers(self, within: float) -> None:
        """Let the schedulers end their move, and stop them: nothing more comes by the clock."""
        await self.crew.stop(*self.schedulers, within=within)

    async def _make_store(self) -> None:
        code, log = await self.crew.run("migrate", "-m", "services.credits", "migrate")
        if code != 0:
            raise NotReady(f"the store's tables could not be made (exit code {code}): see {log}")

    async def _start_sink(self, listening: socket.socket, outage: float) -> None:
        options = ("--fd", str(listening.fileno()), "--outage", str(outage), "--think", _THINK)
        program = ("-m", "services.demo.sink", str(self._place.book))
        await self.crew.start("sink", *program, *options, inherit=[listening.fileno()])

    async def _start_schedulers(self, eye: Eye) -> None:
        if await eye.consumers(SCHEDULER):
            return
        self.heartbeat = Heartbeat(self._place.run, int(time.time()) + 1)
        self.heartbeat.write(self._place.schedules)
        self.schedulers = [await self._start_scheduler(1), await self._start_scheduler(2)]

    async def _start_scheduler(self, number: int) -> Member:
        return await self._penstock(f"scheduler-{number}", "scheduler", str(self._place.schedules))

    async def _start_mailer(self, number: int) -> Member:
        smtp = {"MAILER_SMTP_URL": f"smtp://127.0.0.1:{self.smtp_port}"}
        return await self._worker(f"mailer-{number}", "services.mailer.app:build", smtp)

    async def _start_credits(self, number: int) -> Member:
        return await self._worker(f"credits-{number}", "services.credits.app:build")

    async def _worker(self, name: str, target: str, more: Mapping[str, str] | None = None) -> Member:
        return await self._penstock(name, "worker", target, more=more)

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
        ours = [len(workers) for workers in (self.mailers, self.reports, self.credits)]
        found = [await eye.consumers(queue) for queue in WORK]
        return all(now >= there + more for now, there, more in zip(found, before, ours, strict=True))


def worker_settings(place: RunPlace) -> dict[str, str]:
    """The environment of the demo's workers: impatient ones, so that the demo ends soon."""
    policy = {"RETRY_FIRST": "1", "RETRY_FACTOR": "2", "RETRY_CAP": "4", "UNKNOWN_KIND_GRACE": "2"}
    return {
        **{f"MAILER_{name}": value for name, value in policy.items()},
        **{f"REPORTS_{name}": value for name, value in policy.items()},
        "REPORTS_SOURCE_DIR": str(place.sources),
        "REPORTS_OUTPUT_DIR": str(place.outputs),
        "ORDERS_SPOOL_DIR": str(place.sources),
        "PENSTOCK_TOPOLOGY": str(ROOT / DEFAULT_FILE),
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
    await apply(broker.url, read_spec(ROOT / DEFAULT_FILE))
    place.sources.mkdir()
    async with Crew(place.folder, worker_settings(place) | dict(broker.environment)) as crew:
        yield System(crew, place)
