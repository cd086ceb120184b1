"""Carries out one experiment with one entrant: prepares the queue, runs the processes, checks that the jobs add up."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from penstock.topology.names import SCHEDULER
from tests.bench import filling, in_turn, queues
from tests.bench.cells import CELLS, MANY, Cell
from tests.bench.entrants import hand
from tests.bench.entrants.common import PREFETCH, WARM_UP, arguments, compact
from tests.bench.in_turn import Part
from tests.bench.lineup import HAND, Entrant
from tests.bench.measures import Experiment, Shape
from tests.bench.processes import EntrantError, Running, started, wait_until
from tests.bench.profiling import Profiling
from tests.bench.stores import OWNERS, Stores

Figures = dict[str, float]

#: The kind of the jobs that wait in an outbox.
KIND = "bench.note"

#: How long an idle worker settles before its memory is read (seconds).
_SETTLE = 3.0


@dataclass(frozen=True, slots=True)
class Bench:
    """One broker and the stores to run on. With *profiling*, what is timed is profiled as well."""

    url: str
    stores: Stores
    profiling: Profiling | None = None

    def run(self, entrant: Entrant, experiment: Experiment) -> Figures:
        """Let *entrant* play *experiment* once. Raises `EntrantError`."""
        queues.delete(self.url, entrant.queue)
        try:
            return _SHAPES[experiment.shape](self, entrant, experiment)
        finally:
            with contextlib.suppress(EntrantError):
                queues.delete(self.url, entrant.queue)

    def _play(self, entrant: Entrant, role: str, count: int, profiling: Profiling | None = None) -> Figures:
        command = entrant.command(role, count)
        if profiling is not None:
            command = profiling.wrap(entrant, role, command)
        with started(entrant, command, self.url, role) as running:
            return running.answer()

    def publish(self, entrant: Entrant, experiment: Experiment) -> Figures:
        figures = self._play(entrant, experiment.name, experiment.count, self.profiling)
        self._expect(entrant, lambda ready: 0 <= experiment.count - ready < 16, f"{experiment.count} messages")
        return figures

    def work(self, entrant: Entrant, experiment: Experiment) -> Figures:
        self._seed(entrant, experiment.seed, experiment.count)
        return self._worked(entrant, experiment)

    def filled(self, entrant: Entrant, experiment: Experiment) -> Figures:
        self._play(entrant, f"fill_{experiment.name}", experiment.count)
        return self._worked(entrant, experiment)

    def _worked(self, entrant: Entrant, experiment: Experiment) -> Figures:
        figures = self._play(entrant, experiment.name, experiment.count, self.profiling)
        self._expect(entrant, lambda ready: ready <= PREFETCH, "no message left")
        return figures

    def in_turn(self, entrant: Entrant, experiment: Experiment) -> Figures:
        cell = CELLS[experiment.name]
        if self.profiling is not None:
            return self._alone(entrant, experiment)
        parts = list(self._parts(entrant, cell, experiment.count))
        stores = [part.entrant.store for part in parts if part.entrant.store]
        marked = [filling.marked(store) for store in stores]
        with contextlib.ExitStack() as stack:
            for part in parts:
                if part.entrant.stored:
                    stack.callback(queues.delete, self.url, part.entrant.queue)
                    self._seed(part.entrant, experiment.seed, part.total)
            found = in_turn.laps(parts, self.url)
            for part in parts:
                if part.entrant.stored:
                    self._expect(part.entrant, lambda ready: ready == 0, "no message left")
        for store, before in zip(stores, marked, strict=True):
            _add_up(experiment, filling.marked(store) - before, "marks")
            if cell.strength == "effect":
                _add_up(experiment, filling.balance(store), "effects")
        return in_turn.figures(found)

    def _parts(self, entrant: Entrant, cell: Cell, count: int) -> Iterator[Part]:
        """Those who take part in the turns of *cell*, *count* jobs with a store each."""
        noops = count * cell.idle.count // cell.count
        yield Part(in_turn.NOOP, entrant.on("idle").with_store(""), cell.idle.name, noops, seconds=0.3)
        for number, role in enumerate(hand.roles(cell), 1):
            store = self.stores.prepared(cell.store, owner=OWNERS[number])
            yield Part(f"{in_turn.HAND}{number}", HAND.with_store(store), role, count)
        yield Part(in_turn.OURS, entrant.with_store(self.stores.prepared(cell.store)), cell.name, count)
        if cell.flat:
            store = self.stores.prepared(cell.store, MANY)
            yield Part(in_turn.FULL, entrant.on(filling.CONSUMER).with_store(store), cell.full.name, count)

    def _alone(self, entrant: Entrant, experiment: Experiment) -> Figures:
        """Penstock's part by itself, to be profiled."""
        self._seed(entrant, experiment.seed, experiment.count)
        return self._worked(entrant.with_store(self.stores.prepared(experiment.store)), experiment)

    def _seed(self, entrant: Entrant, seed: str, count: int) -> None:
        """Let *count* jobs wait in the entrant's queue."""
        queues.delete(self.url, entrant.queue)
        self._play(replace(entrant, store=None), seed, 1)
        queues.multiply(self.url, entrant.queue, count)

    def relay(self, entrant: Entrant, experiment: Experiment) -> Figures:
        url = self.stores.prepared(experiment.store)
        filling.fill_outbox(url, KIND, compact(arguments()), experiment.count)
        entrant = entrant.with_store(url)
        figures = self._play(entrant, experiment.name, experiment.count, self.profiling)
        self._expect(entrant, lambda ready: ready == experiment.count, f"{experiment.count} messages")
        _add_up(experiment, experiment.count - filling.waiting(url), "rows marked")
        return figures

    def schedules(self, entrant: Entrant, experiment: Experiment) -> Figures:
        queues.delete(self.url, SCHEDULER)  # or what was due since the last run would be made up for
        return self._play(entrant.as_scheduler(), experiment.name, experiment.count)

    def latency(self, entrant: Entrant, experiment: Experiment) -> Figures:
        count = str(experiment.count + WARM_UP)
        worker = entrant.command("latency_worker", int(count))
        publisher = entrant.command("latency_publisher", int(count))
        with started(entrant, worker, self.url, "latency_worker") as working:
            self._consuming(entrant)
            with started(entrant, publisher, self.url, "latency_publisher") as publishing:
                publishing.answer()
            return working.answer()

    def idle(self, entrant: Entrant, _experiment: Experiment) -> Figures:
        self._play(entrant, "seed", 1)
        queues.purge(self.url, entrant.queue)
        with started(entrant, [entrant.python, *entrant.idle], self.url, "idle") as running:
            self._consuming(entrant)
            time.sleep(_SETTLE)
            return {"pss_mb": _alive(running).pss_mb()}

    def _consuming(self, entrant: Entrant) -> None:
        def consuming() -> bool:
            depth = queues.depth(self.url, entrant.queue)
            return depth is not None and depth.consumers > 0

        wait_until(consuming, f"a consumer on {entrant.queue}")

    def _expect(self, entrant: Entrant, right: Callable[[int], bool], what: str) -> None:
        """Check what is left: a client that lost or never acked messages has no figure.

        The broker drops acks that its channel process still held back when the client closed the channel (seen with
        the C client, which acks and closes fastest), so up to a window of jobs may be back in the queue.
        """

        def settled() -> bool:
            depth = queues.depth(self.url, entrant.queue)
            return depth is not None and right(depth.ready)

        wait_until(settled, f"{what} in {entrant.queue}", 5.0)


def _alive(running: Running) -> Running:
    if running.process.poll() is not None:
        raise EntrantError(f"the idle worker ended, see {running.log}")
    return running


def _add_up(experiment: Experiment, found: int, what: str) -> None:
    """An entrant that left something out, or did it twice, has no figure."""
    if found != experiment.count:
        raise EntrantError(f"{found} {what}, not {experiment.count}")


_SHAPES: dict[Shape, Callable[[Bench, Entrant, Experiment], Figures]] = {
    Shape.PUBLISH: Bench.publish,
    Shape.WORK: Bench.work,
    Shape.FILLED: Bench.filled,
    Shape.LATENCY: Bench.latency,
    Shape.IDLE: Bench.idle,
    Shape.TURNS: Bench.in_turn,
    Shape.RELAY: Bench.relay,
    Shape.SCHEDULES: Bench.schedules,
}
