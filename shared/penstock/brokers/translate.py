"""Pika's exceptions and AMQP's reply codes as Penstock's errors: one table, one line of text each, no password."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass

from pika import exceptions

from penstock.errors import AccessRefused, BrokerError, ConnectionLost, TooLarge, TopologyMismatch

#: By AMQP reply code; what is not here ends the channel or connection for reasons of the moment. The codes:
#: https://www.rabbitmq.com/amqp-0-9-1-reference.html#constants
_BY_CODE: dict[int, type[BrokerError]] = {
    311: TooLarge,
    402: AccessRefused,
    403: AccessRefused,
    404: TopologyMismatch,
    405: TopologyMismatch,
    501: BrokerError,
    530: AccessRefused,
}

#: By the broker's words, where the code alone does not decide.
_BY_WORDS: tuple[tuple[re.Pattern[str], type[BrokerError]], ...] = (
    (re.compile(r"message size \d+ .*larger than"), TooLarge),
    (re.compile(r"inequivalent arg|invalid arg"), TopologyMismatch),
    (re.compile(r"limit \(\d+\) is reached|is down"), ConnectionLost),
    (re.compile(r"reuse consumer tag"), BrokerError),
)

_MISSING = re.compile(r"no (exchange|queue) '([^']*)' in vhost '([^']*)'")
_PREFIX = re.compile(r"^[A-Z_]+ - ")
_SIZE = re.compile(r"message size (\d+) ")

_APPLY = "run `penstock topology apply`"


@dataclass(frozen=True, slots=True)
class Closing:
    """Why a channel ended; *words* are the broker's when it closed this very channel, else empty."""

    error: BrokerError
    words: str = ""

    def blames(self, exchange: str, key: str, size: int, *, alone: bool) -> bool:
        """Whether the broker means a publish to *exchange* with *key* of *size* bytes.

        Its words name the exchange, with topic permissions the key too, or the size. Where they name nothing, only a
        publish that was *alone* on the channel can be meant.
        """
        if not self.words:
            return False
        if (larger := _SIZE.search(self.words)) is not None:
            return int(larger[1]) == size
        if "topic '" in self.words:
            return f"topic '{key}' in exchange '{exchange}'" in self.words
        if "exchange '" in self.words:
            return f"exchange '{exchange}'" in self.words
        return alone


def closing(reason: BaseException | None, peer: str) -> Closing:
    """Say why a channel or an open connection to *peer* ended, from pika's *reason*."""
    match reason:
        case exceptions.ChannelClosedByBroker():
            words = one_line(str(reason.reply_text))
            return Closing(refused(reason.reply_code, words, peer), words)
        case exceptions.ConnectionClosedByBroker():
            return Closing(refused(reason.reply_code, one_line(str(reason.reply_text)), peer))
        case exceptions.ConnectionClosedByClient() | exceptions.ChannelClosedByClient():
            return Closing(ConnectionLost(f"{peer}: closed on our side"))
        case exceptions.AMQPHeartbeatTimeout():
            return Closing(ConnectionLost(f"{peer}: the broker fell silent, no heartbeat came"))
        case exceptions.AuthenticationError():
            return Closing(AccessRefused(f"{peer}: the broker offers no login mechanism that we know"))
        case exceptions.IncompatibleProtocolError():
            return Closing(ConnectionLost(f"{peer}: what answers there is no AMQP 0-9-1 broker, or wants TLS"))
        case exceptions.ProbableAuthenticationError() | exceptions.ProbableAccessDeniedError():
            return Closing(ConnectionLost(f"{peer}: the connection broke during the login"))
        case exceptions.StreamLostError() | None:
            return Closing(ConnectionLost(f"{peer}: the connection broke"))
        case _:
            return Closing(ConnectionLost(f"{peer}: the connection ended: {one_line(str(reason) or repr(reason))}"))


def refused(code: int, words: str, peer: str) -> BrokerError:
    """Say what the broker meant when it closed a channel or connection with *code* and *words*."""
    kind = next((kind for pattern, kind in _BY_WORDS if pattern.search(words)), _BY_CODE.get(code, ConnectionLost))
    return kind(f"{peer}: {_explain(code, words)}")


def unreachable(error: OSError, peer: str) -> BrokerError:
    """Translate what TCP or TLS answered to an attempt to connect."""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = getattr(error, "verify_message", "") or error.strerror or str(error)
        return AccessRefused(f"{peer}: the broker's certificate is not trusted: {one_line(why)}")
    why = one_line(error.strerror or str(error))
    if isinstance(error, ssl.SSLError):
        return ConnectionLost(f"{peer}: TLS failed, is this the broker's TLS port? {why}")
    return ConnectionLost(f"{peer}: cannot be reached: {why}")


def again(error: BrokerError) -> BrokerError:
    """Return a fresh exception like *error*: one that is raised twice would collect both tracebacks."""
    return type(error)(*error.args)


def one_line(text: str) -> str:
    """Return *text* on one line, at most 300 characters of it."""
    return " ".join(text.split())[:300]


def _explain(code: int, words: str) -> str:
    if (missing := _MISSING.search(words)) is not None:
        thing, name, vhost = missing.groups()
        return f"{thing} {name!r} is missing in vhost {vhost!r}: {_APPLY}"
    plain = _PREFIX.sub("", words)
    if "timed out" in plain and "acknowledgement" in plain:
        return f"the broker's consumer timeout took a delivery back: {plain}"
    return f"{plain} ({code})"
