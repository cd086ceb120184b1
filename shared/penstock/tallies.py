"""What runs and what was done, kept in numbers and told many at a time: an event for each costs a no-op job a tenth."""

from __future__ import annotations

from penstock.events import Events, JobsBegun, JobsDone

#: Jobs that are kept before they are told, at most.
_MOST = 256


class Tally:
    """The jobs of one kind in one queue since they were told last."""

    __slots__ = ("ages", "attempts", "kind", "queue", "running", "runs", "schedules", "told", "waits")

    def __init__(self, kind: str, queue: str) -> None:
        self.kind = kind
        self.queue = queue
        #: How many run, and how many did when that was told.
        self.running = self.told = 0
        self.waits: list[float] = []
        self._forget()

    def tell(self, events: Events) -> None:
        """Tell what is new."""
        if self.waits or self.running != self.told:
            events.emit(JobsBegun(self.kind, self.queue, self.running, self.waits))
            self.waits, self.told = [], self.running
        if self.runs:
            events.emit(JobsDone(self.kind, self.queue, self.runs, self.ages, self.attempts, self.schedules))
            self._forget()

    def _forget(self) -> None:
        self.runs: list[float] = []
        self.ages: list[float] = []
        self.attempts: list[int] = []
        self.schedules: list[str] = []


class Tallies:
    """The tallies of the kinds that have handlers, for whoever *events* tells of them. One event loop."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._kept: dict[str, Tally] = {}

    def begun(self, kind: str, queue: str, wait: float | None) -> None:
        """Count a job that begins; *wait*: of a first attempt that waited in the queue alone."""
        tally = self._kept.get(kind) or self._keep(kind, queue)
        tally.running += 1
        if wait is not None:
            tally.waits.append(wait)

    def ended(self, kind: str) -> None:
        """Count a job that runs no more, and had begun."""
        self._kept[kind].running -= 1

    def done(self, kind: str, queue: str, attempt: int, run: float, since: float | None, schedule: str | None) -> None:
        """Count a job that is done; *since*: how long before its run it was published."""
        tally = self._kept.get(kind) or self._keep(kind, queue)
        tally.runs.append(run)
        tally.attempts.append(attempt)
        if since is not None:
            tally.ages.append(since + run)
        if schedule is not None:
            tally.schedules.append(schedule)
        if len(tally.runs) >= _MOST:
            tally.tell(self._events)

    def tell(self) -> None:
        """Tell what was not told yet."""
        for tally in self._kept.values():
            tally.tell(self._events)

    def _keep(self, kind: str, queue: str) -> Tally:
        return self._kept.setdefault(kind, Tally(kind, queue))
