"""Publishing jobs: from a kind and its arguments to the broker's confirm."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar  # jobs of many argument types pass through here

from penstock import headers as h
from penstock import tracing
from penstock.clock import Clock, new_job_id
from penstock.delay import kind_key, whole_seconds
from penstock.errors import BrokerError, ConnectionLost, PenstockError, TooLarge, Unconfirmed, UnknownKind, UsageError
from penstock.events import Events, Published
from penstock.job import NewJob, Receipt, is_kind
from penstock.message import JSON, Message
from penstock.ports import Outlet
from penstock.sending import Sender
from penstock.topology.names import DELAY, JOBS

if TYPE_CHECKING:
    from opentelemetry.trace import Span

V = TypeVar("V")

#: Publishes in flight at once in ``send_many``: hides a round trip, and bounds the duplicates after a loss.
WINDOW = 1000
#: Publishes between two turns of the loop in ``send_many``: what was put goes out, and the broker works on it while the
#: next are made. A whole window in one write would let the two take turns.
BURST = 64

_ZERO = timedelta()
_MAX_ID = 255


@dataclass(slots=True, eq=False)
class Outgoing:
    """A job ready for the wire; *span* is that of its publish, where somebody traces."""

    message: Message
    exchange: str
    key: str
    receipt: Receipt
    span: Span | None = None


class Packer:
    """Turns new jobs into messages. Holds no state: any thread may use it.

    *kinds*: the catalogue's names, when there is one; a job of another kind is refused before it is sent, because a
    delayed job that no queue takes is found out only when it is due. *trace*: begins the span of a message.
    """

    def __init__(
        self,
        clock: Clock,
        app_id: str | None,
        max_body: int,
        kinds: Collection[str] | None,
        *,
        trace: Callable[[Message, str, str], Span | None] = tracing.publishing,
    ) -> None:
        self._clock = clock
        self._app_id = app_id
        self._max_body = max_body
        self._kinds = kinds
        self._trace = trace

    def pack(self, new: NewJob[Any]) -> Outgoing:
        """Return *new* as a message. Raises ``SchemaError``, ``TooLarge``, ``UsageError``, ``UnknownKind``."""
        return self.pack_body(new.kind.name, new.kind.encode(new.args), new)

    def pack_body(self, kind: str, body: bytes, options: NewJob[Any]) -> Outgoing:
        """Return *body*, whatever it is, as a message of *kind* with the *options* of a new job. Raises as ``pack``."""
        if self._kinds is not None and kind not in self._kinds:
            raise UnknownKind(f"no kind {kind!r} in the catalogue")
        if len(body) > self._max_body:
            raise TooLarge(f"the arguments of {kind} take {len(body)} bytes, over the limit of {self._max_body}")
        now = self._clock.now_ms()
        headers: dict[str, Any] = {h.PUBLISHED: now}
        if options.expires is not None:
            headers[h.EXPIRES] = _expires_ms(options.expires, now)
        job_id = new_job_id(now) if options.id is None else _checked_id(options.id)
        exchange, key = (JOBS, kind) if options.delay is None and options.at is None else _delayed(kind, options, now)
        message = Message(
            body, headers, job_id, kind, JSON, None, now // 1000, self._app_id, options.correlation_id, None
        )
        return Outgoing(message, exchange, key, Receipt(job_id, kind), self._trace(message, exchange, key))


#: Position, job, the answer to come, the outlet it was sent through, loop time of the start.
_Flight = tuple[int, Outgoing, "asyncio.Future[None]", Outlet, float]


class Publishing:
    """Sends outgoing jobs over a ``Sender``. One event loop; its tasks may share it."""

    def __init__(self, sender: Sender, events: Events) -> None:
        self._sender = sender
        self._events = events

    async def send(self, outgoing: Outgoing, deadline: float) -> Receipt:
        """Publish and wait for the confirm until loop time *deadline*. Raises ``BrokerError`` as ``Sender.send``."""
        started = asyncio.get_running_loop().time()
        try:
            await self._sender.send(outgoing.message, outgoing.exchange, outgoing.key, deadline)
        except BrokerError as error:
            self._report(outgoing, error, started)
            raise
        except asyncio.CancelledError:
            if outgoing.span is not None:
                tracing.published(outgoing.span, "cancelled")
            raise
        self._report(outgoing, None, started)
        return outgoing.receipt

    async def send_many(self, outgoing: Iterable[Outgoing], seconds: float) -> list[PenstockError | None]:
        """Publish all, pipelined, each within *seconds* of its turn; the answer to each, None where confirmed.

        *outgoing* is read lazily: never more than a window ahead of the broker's confirms.
        """
        results: list[PenstockError | None] = []
        flying: deque[_Flight] = deque()
        clock, sender = asyncio.get_running_loop().time, self._sender
        patience = sender.patience(seconds)
        for position, item in enumerate(outgoing):
            if len(flying) >= WINDOW:
                await self._land(flying, results, seconds)
            elif position % BURST == BURST - 1:
                await asyncio.sleep(0)
            now = clock()
            results.append(None)
            outlet = sender.ready
            if outlet is None:
                while flying:  # what was on its way goes first, again: jobs keep their order over a lost connection
                    await self._land(flying, results, seconds)
                results[position] = await self._alone(item, now, seconds)
                continue
            future = outlet.publish(item.message, item.exchange, item.key, now + patience)
            flying.append((position, item, future, outlet, now))
        while flying:
            await self._land(flying, results, seconds)
        return results

    async def _land(self, flying: deque[_Flight], results: list[PenstockError | None], seconds: float) -> None:
        """Wait for the oldest publish in flight, and take every further one that has its answer by then.

        One of unknown outcome is sent again with the same id.
        """
        while True:
            position, item, future, outlet, started = flying.popleft()
            try:
                await future
                self._report(item, None, started)
            except (Unconfirmed, ConnectionLost) as error:
                if isinstance(error, Unconfirmed):
                    self._sender.renew(outlet)
                results[position] = await self._alone(item, started, seconds, error)
            except BrokerError as error:
                results[position] = error
                self._report(item, error, started)
            if not flying or not flying[0][2].done():
                return

    async def _alone(
        self, item: Outgoing, started: float, seconds: float, known: BrokerError | None = None
    ) -> BrokerError | None:
        if known is not None and asyncio.get_running_loop().time() >= started + seconds:
            self._report(item, known, started)
            return known
        try:
            await self.send(item, started + seconds)
        except BrokerError as error:
            return error
        return None

    def _report(self, outgoing: Outgoing, error: BaseException | None, started: float) -> None:
        if self._events.watched or outgoing.span is not None:
            result = tracing.CONFIRMED if error is None else type(error).__name__.lower()
            seconds = asyncio.get_running_loop().time() - started
            self._events.emit(Published(outgoing.receipt.kind, result, seconds))
            if outgoing.span is not None:
                tracing.published(outgoing.span, result)


def _delayed(kind: str, options: NewJob[Any], now_ms: int) -> tuple[str, str]:
    if options.delay is not None and options.at is not None:
        raise UsageError("a job takes delay or at, not both")
    wait = _until(options.at, now_ms) if options.delay is None else _typed(options.delay, timedelta, "delay")
    if wait < _ZERO and options.delay is not None:
        raise UsageError(f"a delay cannot be negative: {wait}")
    if wait <= _ZERO:
        return JOBS, kind
    if not is_kind(kind):
        raise UsageError(f"{kind!r} cannot be delayed: it is not a kind")
    try:
        return DELAY, kind_key(whole_seconds(wait), kind)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _until(at: datetime | None, now_ms: int) -> timedelta:
    assert at is not None
    return _aware(at, "at") - datetime.fromtimestamp(now_ms / 1000, UTC)


def _expires_ms(expires: datetime | timedelta, now_ms: int) -> int:
    if not isinstance(expires, timedelta):
        return min(max(int(_aware(expires, "expires").timestamp() * 1000), 0), h.MAX_MS)
    if expires <= _ZERO:
        raise UsageError(f"expires is {expires} from now: the job would never run")
    return min(now_ms + expires // timedelta(milliseconds=1), h.MAX_MS)


def _aware(when: datetime, name: str) -> datetime:
    if _typed(when, datetime, name).utcoffset() is None:
        raise UsageError(
            f"{name} is {when.isoformat()}, without a zone: give an aware datetime, e.g. datetime.now(UTC)"
        )
    return when


def _checked_id(job_id: str) -> str:
    if not _typed(job_id, str, "id") or len(job_id.encode("utf-8", "replace")) > _MAX_ID:
        raise UsageError(f"a job id has 1 to {_MAX_ID} bytes, not {len(job_id)}")
    return job_id


def _typed(value: V, expected: type[V], name: str) -> V:
    if not isinstance(value, expected):
        raise UsageError(f"{name} is {value!r}; it takes a {expected.__name__}")
    return value
