"""Traces on a real broker: one from the publish to every run of the job, whoever published it and however it came."""

from __future__ import annotations

import gzip
import json
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from penstock import AsyncPublisher, Done, JobKind, NewJob, Publisher, Unroutable, outbox
from penstock.events import JobFinished
from penstock.job import Job
from penstock.middleware import Next
from tests.support.commands import penstock
from tests.support.outboxes import BACK_ENDS, MAIL, Mail, connect, migrated, relaying
from tests.support.processes import worker_process
from tests.support.traced_apps import CHILD, LOOP, THREAD, handlers
from tests.support.waiting import eventually
from tests.support.working import LEVELS, Watched, empty, foreign, put, take, working

APP = "tests.support.traced_apps"
FACTORY = f"{APP}:build"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Told:
    """The spans that ended so far."""

    def __init__(self) -> None:
        self._memory = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._memory))

    def of(self, kind: SpanKind) -> list[ReadableSpan]:
        """Those of one kind, in the order of their ends."""
        return [span for span in self._memory.get_finished_spans() if span.kind is kind]

    @property
    def sent(self) -> list[ReadableSpan]:
        """Those of publishes."""
        return self.of(SpanKind.PRODUCER)

    @property
    def runs(self) -> list[ReadableSpan]:
        """Those of runs."""
        return self.of(SpanKind.CONSUMER)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """A tracer provider as an application sets one up; taken away after the test, as OpenTelemetry itself cannot."""
    told = Told()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: told.provider)
    return told


@pytest.fixture(autouse=True)
async def nothing_waits(url: str) -> None:
    """Every test finds empty queues."""
    await empty(url, "jobs.email", "jobs.email.dead", *LEVELS)


@pytest.fixture
async def publisher(url: str) -> AsyncIterator[AsyncPublisher]:
    """A connected publisher."""
    async with AsyncPublisher(url) as publisher:
        yield publisher


def ids(span: ReadableSpan) -> str:
    """The span as a handler spells its own."""
    assert span.context is not None
    return f"{span.context.trace_id:032x}-{span.context.span_id:016x}"


def parent(span: ReadableSpan) -> str:
    """The span's parent, spelled likewise."""
    assert span.parent is not None
    return f"{span.parent.trace_id:032x}-{span.parent.span_id:016x}"


def links(span: ReadableSpan) -> list[str]:
    """The spans it is linked to."""
    return [f"{link.context.trace_id:032x}-{link.context.span_id:016x}" for link in span.links]


def results(worker: Watched) -> list[object]:
    """What the handlers returned, so far."""
    return [event.outcome.result for event in worker.finished if isinstance(event.outcome, Done)]


async def test_a_publish_and_its_run_are_one_trace_named_by_the_conventions(
    url: str, publisher: AsyncPublisher, told: Told
) -> None:
    async with working(url, handlers, factory=FACTORY) as worker:
        with told.provider.get_tracer("shop").start_as_current_span("POST /orders") as request:
            receipt = await publisher.publish(LOOP, {}, correlation_id="order-7")
        await worker.until(JobFinished)
    [sent], [run] = told.sent, told.runs
    assert sent.parent == request.get_span_context(), "the publish is part of what the application was doing"
    assert (parent(run), links(run)) == (ids(sent), [ids(sent)])
    assert (sent.name, run.name) == ("send email.loop", "process email.loop")
    assert dict(sent.attributes or {}) == {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "jobs:email.loop",
        "messaging.rabbitmq.destination.routing_key": "email.loop",
        "messaging.message.id": receipt.id,
        "messaging.message.body.size": 2,
        "messaging.message.conversation_id": "order-7",
        "penstock.kind": "email.loop",
    }
    attributes = dict(run.attributes or {})
    assert isinstance(attributes.pop("messaging.rabbitmq.message.delivery_tag"), int)
    assert attributes == {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "jobs:email.loop:jobs.email",
        "messaging.rabbitmq.destination.routing_key": "email.loop",
        "messaging.message.id": receipt.id,
        "messaging.message.body.size": 2,
        "messaging.message.conversation_id": "order-7",
        "penstock.kind": "email.loop",
        "penstock.attempt": 1,
        "penstock.copy": 0,
        "penstock.outcome": "done",
    }
    assert (sent.status.status_code, run.status.status_code) == (StatusCode.UNSET, StatusCode.UNSET)


async def test_every_attempt_is_a_run_of_the_same_trace_and_tells_why_it_failed(
    url: str, publisher: AsyncPublisher, told: Told
) -> None:
    async with working(url, handlers, factory=FACTORY) as worker:
        await publisher.publish(LOOP, {"failures": 2}, delay=timedelta(seconds=1))
        await worker.until(JobFinished, 3)
    [sent], runs = told.sent, told.runs
    assert str((sent.attributes or {})["messaging.destination.name"]).startswith("jobs.delay:")
    assert [(parent(run), links(run)) for run in runs] == [(ids(sent), [ids(sent)])] * 3
    seen = [dict(run.attributes or {}) for run in runs]
    assert [(found["penstock.attempt"], found["penstock.copy"]) for found in seen] == [(1, 0), (2, 1), (3, 2)]
    assert [found["penstock.outcome"] for found in seen] == ["retried", "retried", "done"]
    assert [found.get("penstock.delay_seconds") for found in seen] == [1.0, 1.0, None]
    assert [run.status.status_code for run in runs] == [StatusCode.ERROR, StatusCode.ERROR, StatusCode.UNSET]
    [failure] = runs[1].events
    assert (seen[1]["error.type"], runs[1].status.description) == ("ValueError", "attempt 2 failed")
    assert failure.name == "exception"
    assert "in in_the_loop" in str((failure.attributes or {})["exception.stacktrace"])


@pytest.mark.parametrize("kind", [LOOP, THREAD, CHILD], ids=lambda kind: kind.name)
async def test_a_handler_runs_inside_its_span_wherever_it_runs(
    url: str, publisher: AsyncPublisher, told: Told, kind: JobKind[dict[str, Any]]
) -> None:
    async with working(url, handlers, factory=FACTORY) as worker:
        await publisher.publish(kind, {})
        await worker.until(JobFinished)
    [run] = told.runs
    assert results(worker) == [ids(run)]


async def test_a_foreign_producers_trace_goes_on(url: str, told: Told) -> None:
    async with working(url, handlers, factory=FACTORY) as worker, foreign(url) as channel:
        await put(channel, "email.loop", b"{}", headers={"traceparent": PARENT, "tracestate": "shop=1"})
        await worker.until(JobFinished)
    [run] = told.runs
    assert (parent(run), links(run)) == (PARENT[3:-3], [PARENT[3:-3]])
    assert run.context is not None
    assert run.context.trace_state.get("shop") == "1"


@pytest.mark.parametrize(
    "headers",
    [
        {"traceparent": 5},
        {"traceparent": "00-xyz"},
        {"traceparent": "00-" + "0" * 32 + "-" + "0" * 16 + "-01"},
        {"traceparent": PARENT + "x" * 20_000},
        {"tracestate": "shop=1"},
    ],
    ids=["a number", "garbage", "zeros", "20 kB", "a state alone"],
)
async def test_a_header_that_is_no_trace_is_no_hindrance(url: str, told: Told, headers: dict[str, Any]) -> None:
    async with working(url, handlers, factory=FACTORY) as worker, foreign(url) as channel:
        await put(channel, "email.loop", b"{}", headers=headers)
        await worker.until(JobFinished)
    [run] = told.runs
    assert (run.parent, links(run)) == (None, [])
    assert results(worker) == [ids(run)]


async def test_a_state_too_long_to_be_passed_on_is_left_out(url: str, told: Told) -> None:
    async with working(url, handlers, factory=FACTORY) as worker, foreign(url) as channel:
        await put(channel, "email.loop", b"{}", headers={"traceparent": PARENT, "tracestate": f"shop={'1' * 600}"})
        await worker.until(JobFinished)
    [run] = told.runs
    assert parent(run) == PARENT[3:-3]
    assert run.context is not None
    assert len(run.context.trace_state) == 0


async def test_a_job_that_cannot_be_run_ends_its_trace_with_the_reason(url: str, told: Told) -> None:
    async with working(url, handlers, factory=FACTORY) as worker, foreign(url) as channel:
        await put(channel, "email.loop", b"no json", headers={"traceparent": PARENT})
        await worker.until(JobFinished)
        letter = await take(channel, "jobs.email.dead")
    [run] = told.runs
    attributes = dict(run.attributes or {})
    assert (run.name, parent(run)) == ("process jobs.email", PARENT[3:-3])
    assert (attributes["penstock.outcome"], attributes["penstock.reason"]) == ("dead", "decode")
    assert run.status.status_code is StatusCode.ERROR
    assert letter.headers["traceparent"] == PARENT, "a replay goes on in the same trace"


async def test_a_publish_that_was_refused_says_so(publisher: AsyncPublisher, told: Told) -> None:
    with pytest.raises(Unroutable):
        await publisher.publish(JobKind("nowhere.send", dict), {})
    [sent] = told.sent
    assert (sent.status.status_code, (sent.attributes or {})["error.type"]) == (StatusCode.ERROR, "unroutable")


def publish_all_ways(url: str) -> list[str]:
    """The ids of three jobs, published one by one and together by a blocking publisher."""
    with Publisher(url) as publisher:
        one = publisher.publish(LOOP, {})
        return [one.id, *(receipt.id for receipt in publisher.publish_many([NewJob(LOOP, {}), NewJob(LOOP, {})]))]


async def test_every_job_of_every_publisher_has_a_span_of_its_own(url: str, told: Told) -> None:
    published = publish_all_ways(url)
    assert [(span.attributes or {})["messaging.message.id"] for span in told.sent] == published
    async with foreign(url) as channel:
        came = [(await take(channel, "jobs.email")).headers["traceparent"] for _ in published]
    assert [str(header)[3:-3] for header in came] == [ids(span) for span in told.sent]


@pytest.mark.parametrize("back_end", BACK_ENDS)
async def test_a_job_from_the_outbox_belongs_to_the_trace_that_added_it(
    url: str, told: Told, back_end: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    where = f"sqlite:///{tmp_path}/store" if back_end == "sqlite" else request.getfixturevalue("postgres_url")
    await migrated(where)
    with closing(connect(where)) as connection, told.provider.get_tracer("shop").start_as_current_span("order") as span:
        outbox.add(connection, MAIL, Mail(1))
        connection.commit()
    async with relaying(url, where), foreign(url) as channel:
        letter = await take(channel, "jobs.email")
    created, sent = told.sent
    assert (created.name, sent.name) == ("create email.send", "send email.send")
    assert created.parent == span.get_span_context()
    assert (parent(sent), links(sent)) == (ids(created), [ids(created)])
    assert str(letter.headers["traceparent"])[3:-3] == ids(created)


async def test_without_a_provider_nothing_is_written_into_a_message(url: str) -> None:
    publish_all_ways(url)
    async with foreign(url) as channel:
        assert "traceparent" not in (await take(channel, "jobs.email")).headers


async def test_a_middleware_may_add_to_the_span(url: str, publisher: AsyncPublisher, told: Told) -> None:
    async def tenant(job: Job[Any], call: Next) -> object:
        trace.get_current_span().set_attribute("tenant", "acme")
        return await call(job)

    async with working(url, handlers, factory=FACTORY, middleware=[tenant]) as worker:
        await publisher.publish(LOOP, {})
        await worker.until(JobFinished)
    [run] = told.runs
    assert (run.attributes or {})["tenant"] == "acme"


class Broken(SpanProcessor):
    """An application's span processor with a mistake, at the *place* that is named."""

    def __init__(self, place: str) -> None:
        self._place = place

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002 - by its name
        if self._place == "start":
            raise ZeroDivisionError(span.name)

    def on_end(self, span: ReadableSpan) -> None:
        if self._place == "end":
            raise ZeroDivisionError(span.name)


@pytest.mark.parametrize("place", ["start", "end"])
async def test_a_mistake_in_the_applications_tracing_stops_no_job(
    url: str, publisher: AsyncPublisher, told: Told, place: str
) -> None:
    told.provider.add_span_processor(Broken(place))
    async with working(url, handlers, factory=FACTORY) as worker:
        await publisher.publish(LOOP, {})
        [finished] = await worker.until(JobFinished)
    assert isinstance(finished.outcome, Done)


class Collector:
    """An OTLP collector of the test's own, on loopback."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _receiver(self.requests.append))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def endpoint(self) -> str:
        """What ``OTEL_EXPORTER_OTLP_ENDPOINT`` is to say."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def spans(self) -> set[tuple[str, str]]:
        """Service and name of every span that came."""
        return {
            (attribute.value.string_value, span.name)
            for request in self.requests
            for resource in request.resource_spans
            for attribute in resource.resource.attributes
            if attribute.key == "service.name"
            for scope in resource.scope_spans
            for span in scope.spans
        }

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()


def _receiver(took: Callable[[ExportTraceServiceRequest], object]) -> type[BaseHTTPRequestHandler]:
    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            took(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing on standard error."""

    return Receiver


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A running collector."""
    collector = Collector()
    yield collector
    collector.close()


async def test_a_worker_sends_its_spans_where_the_standard_variables_say_and_its_log_tells_their_ids(
    url: str, tmp_path: Path, collector: Collector
) -> None:
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "PENSTOCK_LOG_FORMAT": "json"}
    async with worker_process(url, tmp_path, module=APP, **variables) as worker, foreign(url) as channel:
        await put(channel, "email.loop", b"{}", headers={"traceparent": PARENT})
        await eventually(lambda: b"working" in worker.log.read_bytes(), within=30)
        worker.signal(signal.SIGTERM)
        assert await worker.ended() == 0
    assert ("email", "process email.loop") in collector.spans(), "what was recorded is sent before the end"
    lines = [json.loads(line) for line in worker.log.read_text().splitlines()]
    [line] = [line for line in lines if line["event"] == "working"]
    assert line["trace_id"] == PARENT.split("-")[1]
    assert len(line["span_id"]) == 16


def test_an_exporter_nobody_knows_is_refused_in_one_line(url: str) -> None:
    done = penstock("worker", FACTORY, RABBITMQ_URL=url, OTEL_TRACES_EXPORTER="zipkin")
    assert done.code == 5
    assert "OTEL_TRACES_EXPORTER is 'zipkin'; it is one of otlp, console, none" in done.err.splitlines()[-1]
