"""How the paths are described: OpenAPI with a form for every kind, and a page that shows it without foreign servers."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any  # OpenAPI is JSON

import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from penstock import JobKind, __version__
from services.intake.problems import CONTENT_TYPE, TITLES
from services.intake.requests import Item, Options

TITLE = "Penstock intake"
DESCRIPTION = """Submit background jobs over HTTP. A job is answered with 202 once the broker has it on disk.

Errors are problem details (RFC 9457). After 429 and 503 try again, `Retry-After` seconds later, with the same
`Idempotency-Key`: the job is the same then, whatever became of the first request."""

_JSON = "application/json"


class ProblemDetails(BaseModel):
    """An error, by RFC 9457."""

    model_config = ConfigDict(extra="allow", title="Problem")

    type: str
    title: str
    status: int
    detail: str
    request_id: str


_WHEN = {
    400: "Not readable: no JSON object, a broken header, a connection that ended.",
    401: "No known token.",
    403: "The token does not allow this kind or action.",
    404: "No such kind; of a job: nothing is known.",
    408: "The request took too long to come.",
    409: "The idempotency key was used for other arguments.",
    413: "The body, or the batch, is too large.",
    415: "The body has to be `application/json`, not compressed.",
    422: "The arguments do not fit the kind, or an option cannot be meant; `errors` says what and where.",
    429: "Too many requests and jobs with this token.",
    503: "The broker or the store is away or blocked, or too much is under way; `Retry-After` says when to come again.",
}


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": _WHEN[status], "content": {CONTENT_TYPE: {"schema": schema}}} for status in statuses
    }


def _answer(description: str, example: Any) -> dict[str, Any]:
    return {"description": description, "content": {_JSON: {"schema": {"type": "object"}, "example": example}}}


def _options() -> list[dict[str, Any]]:
    """The options of a job as parameters."""
    known = Options.model_json_schema(mode="validation")["properties"]
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": about["description"],
            "schema": about["anyOf"][0],  # the other one is null, which a parameter cannot be
        }
        for name, about in known.items()
    ]


_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "1 to 255 characters that name this job: sent again, it is the same job.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}
_ID = "019c1b0a-2f5c-7d34-9a51-0c6a7b0f7a11"
_ACCEPTED = {"id": _ID, "kind": "email.send"}
_SEEN = {"queue": "email", "state": "done", "copy": 0, "result": None}
_BATCH_EXAMPLE = {
    "jobs": [{"kind": "email.send", "args": {"to": "ada@example.org", "template": "welcome"}, "delay": "5m"}]
}
_BATCH_SCHEMA = {
    "type": "object",
    "required": ["jobs"],
    "properties": {"jobs": {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Item"}}},
}

#: How each path is described to FastAPI.
SUBMIT: dict[str, Any] = {
    "summary": "Submit a job",
    "tags": ["jobs by kind"],
    "status_code": 202,
    "responses": {202: _answer("The broker has the job.", _ACCEPTED), **_problems(*_WHEN)},
    "openapi_extra": {
        "parameters": [*_options(), _KEY],
        "requestBody": {"required": True, "content": {_JSON: {"schema": {"type": "object"}}}},
    },
}
BATCH: dict[str, Any] = {
    "summary": "Submit many jobs",
    "tags": ["jobs"],
    "status_code": 202,
    "responses": {
        202: _answer("All jobs are taken.", {"results": [{"status": 202, **_ACCEPTED}]}),
        207: _answer(
            "Some jobs are taken: each result has its status.",
            {"results": [{"status": 202, **_ACCEPTED}, {"status": 404, "title": TITLES["unknown-kind"]}]},
        ),
        **_problems(400, 401, 408, 413, 415, 422, 429, 503),
    },
    "openapi_extra": {
        "requestBody": {"required": True, "content": {_JSON: {"schema": _BATCH_SCHEMA, "example": _BATCH_EXAMPLE}}}
    },
}
JOB: dict[str, Any] = {
    "summary": "Look at a job",
    "tags": ["jobs"],
    "openapi_extra": {"parameters": [{"name": "job_id", "in": "path", "required": True, "schema": {"type": "string"}}]},
    "responses": {
        200: _answer(
            "What the store knows. The copy of a job that runs may not be known: null.",
            {"id": _ID, **_SEEN, "queues": [_SEEN]},
        ),
        **_problems(401, 404, 429, 503),
    },
}
KINDS: dict[str, Any] = {
    "summary": "List the kinds",
    "tags": ["kinds"],
    "responses": {
        200: _answer("The kinds.", {"kinds": [{"kind": "email.send", "schema": {}, "examples": []}]}),
        **_problems(401, 429),
    },
}


def told(kind: JobKind[Any]) -> dict[str, Any]:
    """A kind as ``/v1/kinds`` lists it."""
    schema = kind.schema()
    examples = schema.pop("examples", [])
    return {
        "kind": kind.name,
        "description": schema.get("description", ""),
        "schema": {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema},
        "examples": examples,
    }


def describe(app: FastAPI, kinds: Sequence[JobKind[Any]], *, tokens: bool) -> None:
    """Let *app* describe itself, with a path for each of *kinds*. *tokens*: whether one has to be sent."""
    made = _described(app, kinds, tokens)
    app.openapi = lambda: made  # type: ignore[method-assign]  # the way FastAPI's documentation shows


def _described(app: FastAPI, kinds: Sequence[JobKind[Any]], tokens: bool) -> dict[str, Any]:
    spec = get_openapi(title=TITLE, version=__version__, description=DESCRIPTION, routes=app.routes)
    schemas = spec.setdefault("components", {}).setdefault("schemas", {})
    for model in (ProblemDetails, Item):
        _add(schemas, "", model.model_json_schema(mode="validation"), model.model_config.get("title") or model.__name__)
    generic = spec["paths"].pop("/v1/jobs/{kind}")["post"]
    by_kind = {f"/v1/jobs/{kind.name}": {"post": _submit(generic, kind, schemas)} for kind in kinds}
    spec["paths"] = {**by_kind, **spec["paths"]}
    if tokens:
        spec["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        spec["security"] = [{"token": []}]
    return spec


def _submit(generic: Mapping[str, Any], kind: JobKind[Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """The operation that submits jobs of *kind*."""
    told_of = told(kind)
    about = _add(schemas, f"{kind.name}.", kind.schema(), kind.name)
    examples = {str(number): {"value": value} for number, value in enumerate(told_of["examples"], 1)}
    return {
        **generic,
        "operationId": f"submit_{kind.name}",
        "summary": told_of["description"].partition("\n")[0].partition(". ")[0].rstrip("."),
        "description": told_of["description"],
        "requestBody": {"required": True, "content": {_JSON: {"schema": about, "examples": examples}}},
    }


def _add(schemas: dict[str, Any], prefix: str, schema: dict[str, Any], name: str) -> dict[str, str]:
    """Put *schema*, and what it is made of, among *schemas*; the reference to it."""
    moved = orjson.loads(orjson.dumps(schema).replace(b'"#/$defs/', f'"#/components/schemas/{prefix}'.encode()))
    for part, about in moved.pop("$defs", {}).items():
        schemas[f"{prefix}{part}"] = about
    schemas[name] = moved
    return {"$ref": f"#/components/schemas/{name}"}


_PAGE = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{TITLE}</title>
<link rel="stylesheet" href="docs/swagger-ui.css"><link rel="icon" href="data:,">
</head>
<body><div id="page"></div><script src="docs/swagger-ui-bundle.js"></script><script src="docs/start.js"></script></body>
</html>
"""
_START = """SwaggerUIBundle({url: "openapi.json", dom_id: "#page", deepLinking: true, validatorUrl: null,
  defaultModelsExpandDepth: 0, docExpansion: "list", tryItOutEnabled: true});
"""
_TYPES = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}
#: The page and its files come from here alone, and it may ask nobody else.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def show(app: FastAPI) -> None:
    """Serve the description at ``/openapi.json``, and the page at ``/docs``."""

    async def spec(_: Request) -> Response:
        return Response(orjson.dumps(app.openapi()), media_type=_JSON)

    async def page(_: Request) -> Response:
        return Response(_PAGE, 200, {"Content-Security-Policy": _POLICY}, "text/html")

    async def start(_: Request) -> Response:
        return Response(_START, media_type="text/javascript")

    async def file(request: Request) -> Response:
        name = request.url.path.rpartition("/")[2]
        return Response(_file(name), media_type=_TYPES[name])

    app.add_route("/openapi.json", spec)
    app.add_route("/docs", page)
    app.add_route("/docs/start.js", start)
    for name in _TYPES:
        app.add_route(f"/docs/{name}", file)


@cache
def _file(name: str) -> bytes:
    found = importlib.util.find_spec("fastapi_offline")
    assert found is not None
    assert found.submodule_search_locations
    return (Path(found.submodule_search_locations[0]) / "static" / name).read_bytes()
