"""The paths below ``/v1``: submit a job or a batch, look at a job, list the kinds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any  # jobs of every argument type
from urllib.parse import quote

import orjson
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import request_response

from penstock import JobKind, NewJob, PenstockError, tracing
from penstock.claims import hash_of
from penstock.clock import new_job_id
from penstock.job import is_kind, json_object
from penstock.topology.form import near
from services.intake import openapi
from services.intake.idempotency import job_id_of
from services.intake.jobs_seen import JobsSeen
from services.intake.problems import Problem, invalid, problem_of
from services.intake.rates import Rates
from services.intake.requests import Item, Key, Options, read_body
from services.intake.submitting import Accepted, Order, Submissions
from services.intake.tokens import Action, Client

JSON = "application/json"

#: Jobs of a batch that are read between two turns of the loop.
_AT_A_TIME = 50


_NO_OPTIONS = Options.model_validate({})


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes of one job's body and of a batch's, and the jobs of a batch."""

    body: int
    batch_body: int
    batch: int


class _Route(APIRoute):
    """A path that FastAPI describes and does not serve: its way to a handler that reads the request by itself costs a
    fifth of the request (measured)."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **told: Any) -> None:
        super().__init__(path, endpoint, **told)
        self.app = request_response(endpoint)


class Routes:
    """The paths over *submissions* and *seen* (None: no store is named). Holds no state of its own."""

    def __init__(
        self,
        kinds: Sequence[JobKind[Any]],
        submissions: Submissions,
        seen: JobsSeen | None,
        rates: Rates,
        limits: Limits,
    ) -> None:
        self._kinds: Mapping[str, JobKind[Any]] = {kind.name: kind for kind in kinds}
        self._told = {kind.name: openapi.told(kind) for kind in kinds}
        self._submissions = submissions
        self._seen = seen
        self._rates = rates
        self._limits = limits

    def add_to(self, app: FastAPI) -> None:
        """Serve the paths. On the application itself: a router within it is one more search for each request."""
        app.router.route_class = _Route
        app.add_api_route("/v1/jobs/{kind}", self.submit, methods=["POST"], **openapi.SUBMIT)
        app.add_api_route("/v1/jobs", self.submit_batch, methods=["POST"], **openapi.BATCH)
        app.add_api_route("/v1/jobs/{job_id:path}", self.job, methods=["GET"], **openapi.JOB)
        app.add_api_route("/v1/kinds", self.kinds, methods=["GET"], **openapi.KINDS)

    async def submit(self, request: Request) -> Response:
        """Submit one job: the body is its arguments, as JSON. Answered once the broker has confirmed it."""
        client, options = _client(request), _options(request)
        known = self._kind(client, request.path_params["kind"])
        key = _key(request)
        body = await read_body(request, self._limits.body)
        order = _order(client, known, body, options, key, request)
        with _in_trace_of(request):
            [result] = await self._submissions.take([order])
        if isinstance(result, Problem):
            raise result
        return _json(202, _accepted(result), _place(result) if self._seen else {}, again=result.again)

    async def submit_batch(self, request: Request) -> Response:
        """Submit many jobs at once; each is answered for itself. 202 when all of them are taken, else 207."""
        client = _client(request)
        items = self._items(await read_body(request, self._limits.batch_body))
        self._rates.charge(client.name, len(items) - 1)  # the request itself has paid for one
        results: list[Order | Accepted | Problem] = []
        for place, item in enumerate(items):
            results.append(self._item(client, item, request))
            if place % _AT_A_TIME == _AT_A_TIME - 1:
                await asyncio.sleep(0)
        orders = {place: found for place, found in enumerate(results) if isinstance(found, Order)}
        with _in_trace_of(request):
            answers = await self._submissions.take(list(orders.values()))
        for place, answer in zip(orders, answers, strict=True):
            results[place] = answer
        told = [_told(result) for result in results]
        return _json(202 if all(one["status"] == 202 for one in told) else 207, {"results": told})

    async def job(self, request: Request) -> Response:
        """Say where a job stands, as far as the store of its workers knows: only handlers with `once` leave a trace,
        from their first run on."""
        if self._seen is None:
            raise Problem(404, "unknown-job", "no store is named here (PENSTOCK_STORE_URL), so no job is remembered")
        try:
            found = await self._seen.look(request.path_params["job_id"], _client(request))
        except PenstockError as error:
            raise problem_of(error) from error
        if found is None:
            raise Problem(404, "unknown-job", "no run of it has begun, or it is forgotten")
        return _json(200, found)

    async def kinds(self, request: Request) -> Response:
        """List the kinds that may be submitted, with the JSON Schemas of their arguments, and examples."""
        client = _client(request)
        return _json(200, {"kinds": [told for name, told in self._told.items() if client.may(Action.PUBLISH, name)]})

    def _kind(self, client: Client, name: str) -> JobKind[Any]:
        if is_kind(name) and not client.may(Action.PUBLISH, name):
            raise Problem(403, "forbidden", f"{client.name} may not publish {name}")
        known = self._kinds.get(name)
        if known is None:
            raise Problem(404, "unknown-kind", f"no kind {name!r:.80}{near(name[:80], self._kinds)}")
        return known

    def _items(self, body: bytes) -> Sequence[Any]:
        try:
            batch = json_object(body)
        except PenstockError as error:
            raise problem_of(error) from error
        items = batch.pop("jobs", None)
        if not isinstance(items, list) or not items or batch:
            raise Problem(422, "schema", 'a batch is {"jobs": [{"kind": …, "args": {…}}, …]}, and nothing beside it')
        if len(items) > self._limits.batch:
            raise Problem(413, "too-large", f"a batch may have at most {self._limits.batch} jobs, not {len(items)}")
        return items

    def _item(self, client: Client, raw: Any, request: Request) -> Order | Problem:
        try:
            item = Item.model_validate(raw)
            body = to_json(item.args)
            if len(body) > self._limits.body:
                raise Problem(413, "too-large", f"the arguments may take at most {self._limits.body} bytes")
            return _order(client, self._kind(client, item.kind), body, item, item.idempotency_key, request)
        except ValidationError as error:
            return invalid(error.errors(include_url=False), "options", "the job cannot be read")
        except Problem as problem:
            return problem


def _order(
    client: Client, kind: JobKind[Any], body: bytes, options: Options, key: str | None, request: Request
) -> Order:
    """The job that is asked for. Raises ``Problem`` when its arguments do not fit."""
    try:
        args = kind.decode(body)
        args_hash = None if key is None else hash_of(kind.encode(args))
    except PenstockError as error:
        raise problem_of(error) from error
    job_id = new_job_id() if key is None else job_id_of(client.name, kind.name, key)
    correlation = options.correlation_id or str(request.scope["state"]["request_id"])
    return Order(NewJob(kind, args, job_id, options.delay, options.at, options.expires, correlation), args_hash)


def _client(request: Request) -> Client:
    client = request.scope["state"]["client"]
    assert isinstance(client, Client)
    return client


def _options(request: Request) -> Options:
    if not request.scope["query_string"]:
        return _NO_OPTIONS
    given = request.query_params.multi_items()
    options = dict(given)
    if len(given) > len(options):
        raise Problem(422, "options", "a query parameter may be given once")
    try:
        return Options.model_validate(options)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False), "options", "a query parameter cannot be meant") from None


def _key(request: Request) -> str | None:
    given = request.headers.getlist("idempotency-key")
    if not given:
        return None
    try:
        [key] = given
        return Key(key=key).key
    except ValueError:  # pydantic's, too
        raise Problem(400, "malformed", "Idempotency-Key has to be one text of 1 to 255 visible characters") from None


def _in_trace_of(request: Request) -> AbstractContextManager[None]:
    """A block whose publishes belong to the trace that the request's ``traceparent`` tells of, if it has one."""
    return _adopted(request.headers) if "traceparent" in request.headers else nullcontext()


@contextmanager
def _adopted(headers: Mapping[str, str]) -> Iterator[None]:
    token = tracing.adopt(tracing.context_of(headers))
    try:
        yield
    finally:
        tracing.leave(token)


def _accepted(result: Accepted) -> dict[str, Any]:
    return {"id": result.id, "kind": result.kind}


def _place(result: Accepted) -> dict[str, str]:
    return {"Location": f"/v1/jobs/{quote(result.id, safe='')}"}


def _told(result: Order | Accepted | Problem) -> dict[str, Any]:
    if isinstance(result, Problem):
        return result.members()
    assert isinstance(result, Accepted)
    return {"status": 202, **_accepted(result), **({"again": True} if result.again else {})}


def _json(status: int, value: Any, headers: Mapping[str, str] | None = None, *, again: bool = False) -> Response:
    more = {"Idempotent-Replayed": "true"} if again else {}
    return Response(orjson.dumps(value), status, {**(headers or {}), **more}, JSON)
