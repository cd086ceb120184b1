"""How a delivery and its outcome cross the pipe between a worker and its child: length-prefixed JSON, never pickle."""

from __future__ import annotations

import asyncio
import base64
import math
import struct
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, assert_never  # JSON values

import orjson
from pydantic_core import to_json

from penstock.claims import Claim
from penstock.message import Delivery, Message
from penstock.outcome import (
    Cancelled,
    Dead,
    DeadReason,
    Done,
    Duplicate,
    Expired,
    Failure,
    Outcome,
    Released,
    Retried,
    Skipped,
    Snoozed,
)

_LENGTH = struct.Struct(">I")


async def read(reader: asyncio.StreamReader) -> Any:
    """The next frame. Raises ``asyncio.IncompleteReadError`` at the end of the stream."""
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    return orjson.loads(await reader.readexactly(length))


def frame(value: object) -> bytes:
    """*value* as a frame; what JSON does not know is written as its ``repr``."""
    data = to_json(value, fallback=repr, inf_nan_mode="null")
    return _LENGTH.pack(len(data)) + data


def pack_delivery(
    delivery: Delivery, memory: int | None, claim: Claim | None = None, trace: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """*delivery*, the memory cap of its run, the claim that covers it and the trace it is part of as JSON values."""
    values = asdict(delivery)
    values["message"] |= {"body": _packed(delivery.message.body), "headers": _packed(delivery.message.headers)}
    return values | {"memory": memory, "claim": None if claim is None else asdict(claim), "trace": trace or {}}


def unpack_delivery(values: dict[str, Any]) -> tuple[Delivery, int | None, Claim | None, Mapping[str, str]]:
    """The reverse of ``pack_delivery``."""
    memory, claim, trace = values.pop("memory"), values.pop("claim"), values.pop("trace")
    message = values.pop("message")
    message |= {"body": _unpacked(message["body"]), "headers": _unpacked(message["headers"])}
    return Delivery(message=Message(**message), **values), memory, None if claim is None else Claim(**claim), trace


def pack_outcome(outcome: Outcome) -> dict[str, Any]:
    """*outcome* as JSON values."""
    match outcome:
        case Done(result=result):
            return {"as": "done", "result": _jsonable(result)}
        case Retried(delay=delay, failure=failure):
            return {"as": "retried", "delay": delay.total_seconds(), "failure": asdict(failure)}
        case Snoozed(delay=delay, note=note, same_copy=same_copy):
            return {"as": "snoozed", "delay": delay.total_seconds(), "note": note, "same_copy": same_copy}
        case Dead(reason=reason, failure=failure):
            return {"as": "dead", "reason": str(reason), "failure": asdict(failure)}
        case Duplicate(why=why) | Skipped(why=why):
            return {"as": type(outcome).__name__.lower(), "why": why}
        case Expired() | Cancelled() | Released():
            return {"as": type(outcome).__name__.lower()}
        case _:
            assert_never(outcome)


def unpack_outcome(values: dict[str, Any]) -> Outcome:
    """The reverse of ``pack_outcome``."""
    match values["as"]:
        case "done":
            return Done(values["result"])
        case "retried":
            return Retried(timedelta(seconds=values["delay"]), Failure(**values["failure"]))
        case "snoozed":
            return Snoozed(timedelta(seconds=values["delay"]), values["note"], values["same_copy"])
        case "dead":
            return Dead(DeadReason(values["reason"]), Failure(**values["failure"]))
        case "expired":
            return Expired()
        case "cancelled":
            return Cancelled()
        case "duplicate":
            return Duplicate(values["why"])
        case "skipped":
            return Skipped(values["why"])
        case _:
            return Released()


def _packed(value: object) -> object:
    """A header value with a tag on everything that JSON has no word for; a table has one too, so none can be forged."""
    match value:
        case dict():
            return {"table": {name: _packed(item) for name, item in value.items()}}
        case list():
            return [_packed(item) for item in value]
        case bytes():
            return {"bytes": base64.b64encode(value).decode()}
        case datetime():
            return {"time": value.isoformat()}
        case Decimal():
            return {"decimal": str(value)}
        case float() if not math.isfinite(value):
            return {"float": str(value)}
        case _:
            return value


def _unpacked(value: Any) -> Any:
    match value:
        case {"table": items}:
            return {name: _unpacked(item) for name, item in items.items()}
        case list():
            return [_unpacked(item) for item in value]
        case {"bytes": text}:
            return base64.b64decode(text)
        case {"time": text}:
            return datetime.fromisoformat(text)
        case {"decimal": text}:
            return Decimal(text)
        case {"float": text}:
            return float(text)
        case _:
            return value


def _jsonable(result: object) -> object:
    """*result*, or a word for it: a handler that ended well must not fail for what it returned."""
    try:
        to_json(result, fallback=repr, inf_nan_mode="null")
    except Exception:  # noqa: BLE001 - writing it runs foreign code
        return f"<{type(result).__name__} that cannot be written as JSON>"
    return result
