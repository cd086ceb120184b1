"""Traces by OpenTelemetry: a span where a job is published, one for each run of it, joined by the message's headers.

Names and attributes are those of the messaging conventions
(https://opentelemetry.io/docs/specs/semconv/messaging/rabbitmq/); what they have no word for begins with ``penstock.``.
A process whose application has set up no tracer provider makes no span, writes no header and imports nothing.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache, wraps
from types import ModuleType
from typing import (
    TYPE_CHECKING,
    Any,  # modules that may not be there, header values of any type
    NamedTuple,
    ParamSpec,
    TypeVar,
)

from penstock import headers as h
from penstock.copies import kind_of, origin_of
from penstock.message import Delivery, Message
from penstock.outcome import WORDS, Dead, Outcome, Retried, Snoozed

if TYPE_CHECKING:
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span, SpanContext, Tracer, TracerProvider

P = ParamSpec("P")
R = TypeVar("R")

CONFIRMED = "confirmed"

_log = logging.getLogger("penstock.tracing")

#: Longer values of ``tracestate`` may be cut by whom they pass (https://www.w3.org/TR/trace-context/#tracestate-limits).
_MAX_TRACESTATE = 512


class Run(NamedTuple):
    """The span of a run that is under way, and how to take it off the context again."""

    span: Span
    token: Token[Context]


def _harmless(told: Callable[P, R | None]) -> Callable[P, R | None]:
    """*told*, but what it raises is logged: samplers and processors are the application's, and must stop no job."""

    @wraps(told)
    def tell(*args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return told(*args, **kwargs)
        except Exception:  # noqa: BLE001 - foreign code
            _log.exception("a span could not be told")
            return None

    return tell


def active() -> bool:
    """Whether the application has set up a tracer provider in this process."""
    return _api() is not None


@_harmless
def publishing(message: Message, exchange: str, key: str, operation: str = "send") -> Span | None:
    """Begin the span of publishing *message*, and write it into its headers; None when nobody traces.

    *operation*: ``send``, or ``create`` for a message that is only written down now.
    """
    api = _api()
    if api is None:
        return None
    span = _send_span(api, message, exchange, key, operation)
    message.headers |= _carrier(api, span)
    return span


@_harmless
def forwarding(message: Message, exchange: str, key: str) -> Span | None:
    """Begin the span of publishing a *message* that was created elsewhere, in the trace its headers tell of."""
    api = _api()
    return None if api is None else _send_span(api, message, exchange, key, "send", _origin(api, message.headers))


@_harmless
def published(span: Span, result: str) -> None:
    """End the span of a publish that was answered: *result* is ``confirmed``, or the name of an error's class."""
    if result != CONFIRMED:
        span.set_attribute("error.type", result)
        _set_error(span, result)
    span.end()


@_harmless
def running(delivery: Delivery, kind: str | None = None) -> Run | None:
    """Begin the span of a run of *delivery* and make it the current one; None when nobody traces.

    It belongs to the trace of the job's first publish, by parent and by link, in each of its attempts. *kind*: that of
    the handler; None for a delivery that is judged without a run, whose kind may be anything.
    """
    api = _api()
    if api is None:
        return None
    from opentelemetry import context

    creation = _origin(api, delivery.message.headers)
    span = _tracer(api.get_tracer_provider()).start_span(
        f"process {delivery.queue if kind is None else kind}",
        _beneath(api, creation),
        api.SpanKind.CONSUMER,
        _processed(delivery),
        [] if creation is None else [_link(creation)],
    )
    return Run(span, context.attach(api.set_span_in_context(span)))


@_harmless
def ended(run: Run, outcome: Outcome) -> None:
    """End the span of a run with what became of the job."""
    from opentelemetry import context

    context.detach(run.token)
    run.span.set_attribute("penstock.outcome", WORDS[type(outcome)])
    if isinstance(outcome, Retried | Snoozed):
        run.span.set_attribute("penstock.delay_seconds", outcome.delay.total_seconds())
    if isinstance(outcome, Dead):
        run.span.set_attribute("penstock.reason", str(outcome.reason))
    if isinstance(outcome, Retried | Dead):
        _tell_failure(run.span, outcome)
    run.span.end()


def context_of(headers: Mapping[str, Any]) -> dict[str, str]:
    """The part of *headers* that tells of a trace, as far as it has the form of one."""
    told = {name: h.text_of(headers, name) for name in (h.TRACEPARENT, h.TRACESTATE)}
    return {name: text for name, text in told.items() if 0 < len(text) <= _MAX_TRACESTATE and text.isascii()}


def carrier() -> dict[str, str]:
    """The current span as headers; empty when nobody traces."""
    api = _api()
    return {} if api is None else _carrier(api, api.get_current_span())


def adopt(headers: Mapping[str, str]) -> Token[Context] | None:
    """Go on in the span that ``carrier`` of another process told of; None when it told of none."""
    if not headers:
        return None
    from opentelemetry import context, trace

    creation = _origin(trace, headers)
    return None if creation is None else context.attach(_beneath(trace, creation))


def leave(token: Token[Context] | None) -> None:
    """Undo ``adopt``."""
    if token is not None:
        from opentelemetry import context

        context.detach(token)


def ids() -> tuple[str, str] | None:
    """The ids of the current trace and span as log lines carry them; None when there is none."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    current = trace.get_current_span().get_span_context()
    return (f"{current.trace_id:032x}", f"{current.span_id:016x}") if current.is_valid else None


def flush() -> None:
    """Send what was recorded, before a process ends without its exit handlers."""
    api = _api()
    send = None if api is None else getattr(api.get_tracer_provider(), "force_flush", None)
    if send is not None:
        send()


def _api() -> Any:
    """OpenTelemetry's ``trace`` module where the application has set it up, else None.

    Nobody can have set it up who has not imported it, so a process that does not trace pays for one look.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None or isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return None
    return trace


def _set_error(span: Span, words: str) -> None:
    from opentelemetry.trace import StatusCode

    span.set_status(StatusCode.ERROR, words)


@lru_cache(8)
def _tracer(provider: TracerProvider) -> Tracer:
    return provider.get_tracer("penstock")


def _send_span(
    api: Any, message: Message, exchange: str, key: str, operation: str, creation: SpanContext | None = None
) -> Span:
    attributes = {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": f"{exchange}:{key}",
        "messaging.rabbitmq.destination.routing_key": key,
        "messaging.message.id": message.message_id,
        "messaging.message.body.size": len(message.body),
        "penstock.kind": message.type,
        **({"messaging.message.conversation_id": message.correlation_id} if message.correlation_id else {}),
    }
    parent = None if creation is None else _beneath(api, creation)
    links = [] if creation is None else [_link(creation)]
    tracer = _tracer(api.get_tracer_provider())
    return tracer.start_span(f"{operation} {message.type}", parent, api.SpanKind.PRODUCER, attributes, links)


def _processed(delivery: Delivery) -> dict[str, str | int]:
    message = delivery.message
    exchange, key = origin_of(delivery)
    known = {
        "messaging.message.id": message.message_id,
        "messaging.message.conversation_id": message.correlation_id,
    }
    return {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": f"{exchange}:{key}:{delivery.queue}",
        "messaging.rabbitmq.destination.routing_key": key,
        "messaging.rabbitmq.message.delivery_tag": delivery.tag,
        "messaging.message.body.size": len(message.body),
        "penstock.kind": kind_of(delivery),
        "penstock.attempt": h.attempt_of(message.headers),
        "penstock.copy": h.copy_of(message.headers),
        **{name: value for name, value in known.items() if value},
    }


def _tell_failure(span: Span, outcome: Retried | Dead) -> None:
    failure = outcome.failure
    span.set_attribute("error.type", failure.type)
    _set_error(span, failure.text)
    told = {"exception.type": failure.type, "exception.message": failure.text}
    if failure.traceback:
        told["exception.stacktrace"] = failure.traceback
    span.add_event("exception", told)


def _origin(api: ModuleType | Any, headers: Mapping[str, Any]) -> SpanContext | None:
    """The span by which a message was first published, as its headers tell; they come from anywhere."""
    told = context_of(headers)
    if h.TRACEPARENT not in told:
        return None
    from opentelemetry.context import Context

    found: SpanContext = api.get_current_span(_propagator().extract(told, Context())).get_span_context()
    return found if found.is_valid else None


def _beneath(api: Any, creation: SpanContext | None) -> Context:
    """A context whose current span is *creation*; without one, a context of nobody's."""
    from opentelemetry.context import Context

    empty = Context()
    if creation is None:
        return empty
    context: Context = api.set_span_in_context(api.NonRecordingSpan(creation), empty)
    return context


def _link(creation: SpanContext) -> Link:
    from opentelemetry.trace import Link

    return Link(creation)


def _carrier(api: Any, span: Span) -> dict[str, str]:
    told: dict[str, str] = {}
    _propagator().inject(told, api.set_span_in_context(span))
    return told


@lru_cache(1)
def _propagator() -> Any:
    """W3C's, whatever the process uses elsewhere: it is what the wire carries."""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator()
