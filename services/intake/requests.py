"""What a request says: its body, read up to a limit, its options, and the jobs of a batch."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any  # arguments are any JSON until their kind is known

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, WithJsonSchema
from starlette.requests import Request

from penstock.durations import EXPECTED, duration
from services.intake.problems import Problem

#: What may be in a key, by the header's own grammar: visible ASCII and spaces within.
_KEY = r"^[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?$"


def _span(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(EXPECTED)  # noqa: TRY004 - pydantic reads ValueError
    return duration(str(value)) if isinstance(value, str | int | float) else value


def _span_or_instant(value: object) -> timedelta | datetime:
    try:
        found = _span(value)
    except ValueError:
        found = value
    if isinstance(found, str):
        try:
            found = datetime.fromisoformat(found)
        except ValueError:
            raise ValueError(f"{EXPECTED}, or an instant such as 2030-01-31T08:00:00+01:00") from None
    if isinstance(found, datetime) and found.utcoffset() is None:
        raise ValueError("an instant needs its zone: add Z or an offset such as +01:00")
    if not isinstance(found, timedelta | datetime):
        raise ValueError(f"{EXPECTED}, or an instant")  # noqa: TRY004 - pydantic reads ValueError
    return found


def _example(text: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "examples": [text]})


Delay = Annotated[timedelta, BeforeValidator(_span), _example("90s")]
Expires = Annotated[timedelta | datetime, PlainValidator(_span_or_instant), _example("1h")]


class Options(BaseModel):
    """How a job is published; as query parameters, or beside ``args`` in a batch."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    delay: Delay | None = Field(None, description="Run it after this: 90, 90s, 5m, 2h, 1d. Not together with `at`.")
    at: AwareDatetime | None = Field(None, description="Run it at this instant, written with its zone.")
    expires: Expires | None = Field(None, description="Do not run it after this duration or instant.")
    correlation_id: Annotated[str, Field(pattern=r"^[\x20-\x7e]{1,255}$")] | None = Field(
        None, description="Goes with the job to its handler; without one, the request's id."
    )


class Item(Options):
    """One job of a batch."""

    kind: str = Field(description="The job's kind.", examples=["email.send"])
    args: dict[str, Any] = Field(description="Its arguments.", default_factory=dict)
    idempotency_key: Annotated[str, Field(pattern=_KEY)] | None = Field(
        None, description="As the header `Idempotency-Key` of a single job."
    )


class Key(BaseModel):
    """The header ``Idempotency-Key``."""

    key: Annotated[str, Field(pattern=_KEY)]


async def read_body(request: Request, most: int) -> bytes:
    """The body of *request*, which must say that it is JSON; never more of it than *most* bytes and a piece.

    The type is insisted on because a page of any web site may send other ones from within a browser without asking.
    Raises ``Problem`` (415, 413, 400).
    """
    _check_head(request, most)
    body = bytearray()
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise Problem(400, "malformed", "the connection ended within the body")
        body += message.get("body", b"")
        if len(body) > most:
            raise _too_large(most)
        if not message.get("more_body", False):
            return bytes(body)


def _check_head(request: Request, most: int) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(415, "media-type", "the header Content-Type has to be application/json")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "media-type", "the body must not be compressed")
    if int(request.headers.get("content-length", 0)) > most:
        raise _too_large(most)


def _too_large(most: int) -> Problem:
    return Problem(413, "too-large", f"the body may have at most {most} bytes here")
