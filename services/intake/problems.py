"""What the door answers when it does not take something: problem details by RFC 9457."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any  # further members of a problem are any JSON

import orjson
from pydantic import ValidationError
from starlette.responses import Response

from penstock import (
    BrokerError,
    ConfigError,
    ConnectionLost,
    DecodeError,
    MessageError,
    Nacked,
    PenstockError,
    SchemaError,
    StoreUnavailable,
    TooLarge,
    Unconfirmed,
    UnknownKind,
    Unroutable,
    UsageError,
)
from penstock.errors import Unencodable
from penstock.printable import printable, shortened

CONTENT_TYPE = "application/problem+json"

#: Seconds after which a client may try again: when the broker is away, and when there is too much to do.
AWAY, BUSY = 5, 1

_MAX_DETAIL = 1000
#: Problems of one body that are told, at most.
_MOST_ERRORS = 20

#: The last part of a problem's ``type``, and its title.
TITLES = {
    "malformed": "The request cannot be read",
    "not-json": "The body is not a JSON object",
    "options": "An option cannot be meant",
    "schema": "The arguments do not fit the kind",
    "unauthorized": "A token is needed",
    "forbidden": "The token does not allow this",
    "unknown-kind": "There is no such kind",
    "unknown-job": "Nothing is known of this job",
    "not-found": "There is nothing here",
    "method": "The method is not allowed here",
    "slow": "The request took too long",
    "conflict": "The idempotency key was used for something else",
    "too-large": "The body is too large",
    "media-type": "The body is not of a type that is read here",
    "misdirected": "This host name is not served here",
    "rate": "Too many requests",
    "busy": "Too much is under way",
    "broker": "The broker does not take jobs now",
    "unroutable": "No queue takes this kind",
    "refused": "The broker refused the job",
    "unconfirmed": "The broker did not confirm the job in time",
    "store": "The store does not answer",
    "internal": "Something is wrong here",
}


class Problem(Exception):
    """An answer that is an error: *slug* is one of ``TITLES``; *more* are further members."""

    def __init__(self, status: int, slug: str, detail: str, *, retry_after: int | None = None, **more: Any) -> None:
        self.status = status
        self.slug = slug
        self.detail = shortened(printable(detail), _MAX_DETAIL)
        self.more = more
        self.headers: dict[str, str] = {} if retry_after is None else {"Retry-After": str(retry_after)}
        super().__init__(detail)

    def members(self) -> dict[str, Any]:
        """The problem as JSON."""
        about = {"type": f"urn:penstock:problem:{self.slug}", "title": TITLES[self.slug], "status": self.status}
        return {**about, "detail": self.detail, **self.more}

    def response(self, request_id: str) -> Response:
        """The problem as an answer."""
        body = orjson.dumps({**self.members(), "request_id": request_id})
        return Response(body, self.status, self.headers, CONTENT_TYPE)


def problem_of(error: PenstockError) -> Problem:
    """What *error* is to an HTTP client. Of the broker's troubles it says nothing that only operators should know."""
    for kind, make in _BY_ERROR.items():
        if isinstance(error, kind):
            return make(error)
    raise error


def invalid(errors: Sequence[Mapping[str, Any]], slug: str, detail: str) -> Problem:
    """422 with pydantic's *errors*, without the values: each says where and what."""
    told = [{"at": "/".join(map(str, error["loc"])), "problem": error["msg"]} for error in errors[:_MOST_ERRORS]]
    return Problem(422, slug, detail, errors=told)


def _schema(error: PenstockError) -> Problem:
    cause = error.__cause__
    if not isinstance(cause, ValidationError):
        return Problem(422, "schema", str(error))
    return invalid(cause.errors(include_url=False, include_input=False, include_context=False), "schema", str(error))


def _said(status: int, slug: str) -> Callable[[PenstockError], Problem]:
    return lambda error: Problem(status, slug, str(error))


def _away(slug: str, detail: str) -> Callable[[PenstockError], Problem]:
    return lambda _: Problem(503, slug, detail, retry_after=AWAY)


_TRY_AGAIN = "it may have been taken: send it again with the same Idempotency-Key"

#: The first that fits counts.
_BY_ERROR: Mapping[type[PenstockError], Callable[[PenstockError], Problem]] = {
    UnknownKind: _said(404, "unknown-kind"),
    DecodeError: _said(400, "not-json"),
    SchemaError: _schema,
    MessageError: _said(422, "schema"),
    UsageError: _said(422, "options"),
    TooLarge: _said(413, "too-large"),
    Unencodable: _said(422, "options"),
    Unroutable: _away("unroutable", "no queue is bound to this kind"),
    Nacked: _away("refused", "the broker has no room for it"),
    Unconfirmed: _away("unconfirmed", _TRY_AGAIN),
    ConnectionLost: _away("broker", "the broker cannot be reached"),
    BrokerError: _away("refused", "the broker does not let this service publish it"),
    StoreUnavailable: _away("store", "the store does not answer"),
    ConfigError: _away("store", "the store is not ready"),
}
