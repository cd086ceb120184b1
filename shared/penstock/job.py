"""Jobs and their kinds: the contract between who asks for work and who does it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, get_origin  # header values are whatever AMQP carried

import orjson
from pydantic_core import PydanticSerializationError, ValidationError, from_json

from penstock.errors import DecodeError, RegistrationError, SchemaError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

A = TypeVar("A")

_KIND = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*")
MAX_KIND = 200


def is_kind(text: str) -> bool:
    """Whether *text* can be the name of a kind: ``[a-z0-9_]`` words joined by dots, at most 200 bytes."""
    return len(text) <= MAX_KIND and _KIND.fullmatch(text) is not None


class JobKind(Generic[A]):
    """A type of job: a dotted *name* (also its routing key) and the type of its arguments.

    *args* is a pydantic model, a dataclass, a TypedDict or plain ``dict``; on the wire it is a JSON object. Unknown
    fields are ignored unless the type forbids them. Immutable and safe to share. Raises ``RegistrationError`` for a
    name that cannot be a routing key.
    """

    def __init__(self, name: str, args: type[A]) -> None:
        if not is_kind(name):
            raise RegistrationError(
                f"{name!r} cannot be a kind: lower-case words of a-z, 0-9, _ joined by dots, at most {MAX_KIND} bytes"
            )
        self.name = name
        self.args = args

    def __repr__(self) -> str:
        return f"JobKind({self.name!r}, {self.args.__name__})"

    def new(
        self,
        args: A,
        *,
        id: str | None = None,  # noqa: A002 - the wire's own word
        delay: timedelta | None = None,
        at: datetime | None = None,
        expires: datetime | timedelta | None = None,
        correlation_id: str | None = None,
    ) -> NewJob[A]:
        """Describe a job to be published; see ``NewJob``."""
        return NewJob(self, args, id, delay, at, expires, correlation_id)

    def encode(self, args: A) -> bytes:
        """Return *args* as the JSON body. Raises ``SchemaError`` when they are not of the kind's type."""
        try:
            if self._plain:
                if isinstance(args, Mapping):
                    return orjson.dumps(args)
            elif isinstance(args, self._origin):
                return self._adapter.dump_json(args, warnings="error")
        except (TypeError, PydanticSerializationError) as error:
            raise SchemaError(f"the arguments of {self.name} cannot be written as JSON: {error}") from error
        raise SchemaError(f"{self.name} takes {self.args.__name__}, not {type(args).__name__}")

    def decode(self, body: bytes) -> A:
        """Return the arguments in *body*. Raises ``DecodeError`` (no JSON object) or ``SchemaError`` (does not fit)."""
        if self._plain:
            return cast(A, json_object(body))
        # pydantic takes NaN and Infinity, which are not JSON: other languages cannot read them back.
        if b"NaN" in body or b"Infinity" in body:
            json_object(body)
        try:
            return self._adapter.validate_json(body)
        except ValidationError as error:
            json_object(body)
            raise SchemaError(f"the arguments do not fit {self.name}: {_words(error)}") from error

    def check(self) -> None:
        """Make ready to read and write arguments. Raises ``RegistrationError`` when their type cannot be used."""
        if self._plain:
            return
        from pydantic.errors import PydanticUserError  # see _adapter

        try:
            _ = self._adapter
        except PydanticUserError as error:
            raise RegistrationError(f"{self.name} cannot take {self.args.__name__}: {error.message}") from error

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the arguments."""
        return self._adapter.json_schema()

    @cached_property
    def _adapter(self) -> TypeAdapter[A]:
        from pydantic import TypeAdapter  # loads 150 ms of pydantic, which plain dicts never need

        return TypeAdapter(self.args)

    @cached_property
    def _origin(self) -> type:
        return dict if hasattr(self.args, "__total__") else get_origin(self.args) or self.args

    @cached_property
    def _plain(self) -> bool:
        return self.args is dict


def json_object(body: bytes) -> dict[str, Any]:
    """Return *body* as a JSON object. Raises ``DecodeError`` in one line for everything else."""
    if not body:
        raise DecodeError("the body is empty; a job's body is a JSON object, {} when it takes no arguments")
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise DecodeError(f"the body is not JSON in UTF-8: {error}") from None
    if not isinstance(value, dict):
        raise DecodeError(f"the body is a JSON {type(value).__name__}; a job's arguments are an object")
    return value


def _words(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    words = [f"{'.'.join(map(str, p['loc'])) or 'arguments'}: {p['msg']}" for p in problems[:5]]
    more = len(problems) - 5
    return "; ".join(words) + (f"; and {more} more" if more > 0 else "")


@dataclass(slots=True)
class NewJob(Generic[A]):
    """A job to be published. Treat it as read-only (freezing it would cost more than the rest of its making).

    *id*: the stable job id (a fresh UUIDv7 when None). *delay* or *at* (aware datetime; not both): not before then,
    to the second, at most 194 days away. *expires*: an instant or a time from now after which it is not run any more.
    """

    kind: JobKind[A]
    args: A
    id: str | None = None
    delay: timedelta | None = None
    at: datetime | None = None
    expires: datetime | timedelta | None = None
    correlation_id: str | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """The broker's word that it has taken a job: it is on disk in every queue it was routed to."""

    id: str
    kind: str


@dataclass(slots=True, eq=False)
class Job(Generic[A]):
    """One attempt at a job, as its handler sees it. Treat it as read-only."""

    id: str
    kind: str
    args: A
    #: The attempt being made, from 1: counts the retry budget.
    attempt: int = 1
    #: How often the job was republished (retries, snoozes, replays).
    copy: int = 0
    queue: str = ""
    #: First publish, milliseconds since 1970 UTC; None when the producer did not say.
    published: int | None = None
    correlation_id: str | None = None
    app_id: str | None = None
    redelivered: bool = False
    headers: Mapping[str, Any] = field(default_factory=dict)
