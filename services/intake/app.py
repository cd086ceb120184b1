"""The intake put together, and run until it is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from penstock import AsyncPublisher, Events, __version__, health, logs, telemetry
from penstock.connect import store_for
from penstock.event_log import subscribe
from penstock.events import DrainStarted
from penstock.readiness import Readiness
from penstock.serving import loop_factory, obey_signals
from penstock.settings import Settings as PenstockSettings
from penstock.storing import Store
from penstock.topology.reading import read_spec
from penstock_jobs import KINDS
from services.intake import openapi
from services.intake.door import Door
from services.intake.idempotency import Keys
from services.intake.jobs_seen import JobsSeen
from services.intake.meters import Meters
from services.intake.problems import Problem
from services.intake.rates import Rates
from services.intake.routes import Limits, Routes
from services.intake.server import Server, listening
from services.intake.settings import Settings
from services.intake.standing import Standing
from services.intake.submitting import Submissions
from services.intake.tokens import Tokens

NAMES = tuple(kind.name for kind in KINDS)

_log = structlog.stdlib.get_logger("penstock.intake")


def run() -> bool:
    """Serve until a signal; whether every request was answered. Raises ``PenstockError`` as settings and broker do."""
    settings, penstock = Settings.read(), PenstockSettings.load()
    logs.setup(penstock)
    telemetry.setup("intake")
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_run(settings, penstock))


async def _run(settings: Settings, penstock: PenstockSettings) -> bool:
    events = Events()
    tokens = None if settings.tokens is None else Tokens(settings.tokens)
    lines = subscribe(events)
    publisher = AsyncPublisher(
        penstock.broker_url,
        app_id="intake",
        deadline=settings.publish_timeout,
        max_body=settings.max_body,
        kinds=NAMES,
        connect_timeout=penstock.connect_timeout,
        events=events,
    )
    meters, readiness = Meters(), Readiness([publisher.name])
    try:
        async with _opened(penstock) as store, health.served(penstock, events, readiness, "publisher", meters):
            standing = Standing(publisher)
            door = _door(settings, penstock, publisher, standing, store, tokens, meters)
            return await _serve(settings, penstock, door, standing, events)
    finally:
        await publisher.close()
        lines.close()


async def _serve(
    settings: Settings, penstock: PenstockSettings, door: Door, standing: Standing, events: Events
) -> bool:
    """Serve until a signal, or until the broker refuses: then that is raised, after the drain."""
    server = Server(door, most=settings.max_requests, drain=penstock.drain_timeout)
    sock = listening(settings.host, settings.port)
    host, port = sock.getsockname()[:2]
    _log.info("serving", version=__version__, host=host, port=port, broker=penstock.broker_url.masked)
    stop = asyncio.Event()
    serving = asyncio.create_task(server.serve([sock]))
    obey_signals(stop, serving)
    others = [asyncio.create_task(standing.stay()), asyncio.create_task(stop.wait())]
    await asyncio.wait([serving, *others], return_when=asyncio.FIRST_COMPLETED)
    events.emit(DrainStarted("intake", door.under_way, penstock.drain_timeout.total_seconds()))
    server.should_exit = True
    await asyncio.wait([serving])
    clean = not serving.cancelled() and not door.cut_off
    for task in others:
        task.cancel()
    staying, _ = await asyncio.gather(*others, return_exceptions=True)
    _log.info("stopped", clean=clean)
    if isinstance(staying, Exception):
        raise staying
    if not serving.cancelled():
        serving.result()
    return clean


def _door(
    settings: Settings,
    penstock: PenstockSettings,
    publisher: AsyncPublisher,
    standing: Standing,
    store: Store | None,
    tokens: Tokens | None,
    meters: Meters,
) -> Door:
    rates = Rates(settings.rate, settings.burst)
    seen = None if store is None else _seen(store, penstock, needed=tokens is not None)
    submissions = Submissions(publisher, standing, Keys(settings.remembered_keys, store))
    limits = Limits(settings.max_body, settings.max_batch_body, settings.max_batch)
    app = _application(Routes(KINDS, submissions, seen, rates, limits), settings, tokens=tokens is not None)
    timeout = settings.request_timeout.total_seconds()
    return Door(app, tokens, rates, meters, timeout=timeout, most=settings.max_requests)


def _seen(store: Store, penstock: PenstockSettings, *, needed: bool) -> JobsSeen:
    """*needed*: without a topology nobody could be told what a token may see."""
    spec = read_spec(penstock.topology) if needed or penstock.topology.exists() else None
    return JobsSeen(store, spec, NAMES)


def _application(routes: Routes, settings: Settings, *, tokens: bool) -> FastAPI:
    app = FastAPI(
        openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False, default_response_class=Response
    )
    routes.add_to(app)
    openapi.describe(app, KINDS, tokens=tokens)
    if settings.shows_docs:
        openapi.show(app)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)
    return app


@asynccontextmanager
async def _opened(penstock: PenstockSettings) -> AsyncIterator[Store | None]:
    """The store that is named, if one is. Raises ``ConfigError``, ``StoreUnavailable``."""
    if penstock.store_url is None:
        yield None
        return
    store = store_for(penstock.store)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response(request.scope["state"]["request_id"])


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    slug = "method" if error.status_code == 405 else "not-found" if error.status_code == 404 else "malformed"
    problem = Problem(error.status_code, slug, f"{request.method} {request.url.path[:200]}: see /v1/kinds, /v1/jobs")
    problem.headers.update(error.headers or {})
    return await _problem(request, problem)


async def _unexpected(request: Request, _: Exception) -> Response:
    return await _problem(request, Problem(500, "internal", "the log of the service says more"))
