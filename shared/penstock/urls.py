"""Where the broker is: its AMQP URL, read strictly and never shown with its password."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from penstock.errors import ConfigError
from penstock.secret_files import secret_from

if TYPE_CHECKING:
    import ssl

PORTS = {"amqp": 5672, "amqps": 5671}
EXAMPLE = "amqp://user:password@host:5672/vhost"

TLS_OPTIONS = ("cafile", "certfile", "keyfile")
OPTIONS = (*TLS_OPTIONS, "heartbeat")

MAX_HEARTBEAT = 65535  # the field is a short unsigned integer on the wire


@dataclass(frozen=True, slots=True)
class BrokerUrl:
    """One broker, one virtual host, one login.

    ``options`` are the query options by name: ``cafile``, ``certfile``, ``keyfile`` (``amqps`` only; paths in PEM form)
    and ``heartbeat`` (seconds). Neither ``str`` nor ``repr`` shows the password.
    """

    scheme: str = "amqp"
    host: str = "localhost"
    port: int = 5672
    user: str = "guest"
    password: str = field(default="guest", repr=False)
    vhost: str = "/"
    options: Mapping[str, str] = field(default_factory=dict, hash=False)

    @classmethod
    def parse(cls, text: str) -> BrokerUrl:
        """Read a URL such as ``amqps://user:password@host/vhost?cafile=ca.pem``.

        Missing parts are AMQP's: port 5672 (5671 with TLS), ``guest`` for user and password, virtual host ``/``.
        Raises ``ConfigError``, every problem a line, the password masked.
        """
        shown = _masked(text.strip())
        parts = _split(text.strip(), shown)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        problems = [f"broker URL {shown}: {problem}" for problem in _problems(parts, options)]
        if problems:
            raise ConfigError(*problems)
        return cls(
            scheme=parts.scheme,
            host=parts.hostname or "",
            port=parts.port or PORTS[parts.scheme],
            user=unquote(parts.username or "guest"),
            password="guest" if parts.password is None else unquote(parts.password),
            vhost=unquote(parts.path[1:]) or "/",
            options=options,
        )

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted, and the broker's certificate and host name verified."""
        return self.scheme == "amqps"

    @property
    def heartbeat(self) -> int | None:
        """The heartbeat asked for in seconds, or None for the caller's default; 0 turns heartbeats off."""
        value = self.options.get("heartbeat")
        return None if value is None else int(value)

    @property
    def masked(self) -> str:
        """The URL for logs and errors: password as ``***``, no options."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{quote(self.user, safe='')}:***@{host}:{self.port}/{quote(self.vhost, safe='')}"

    def __str__(self) -> str:
        return self.masked

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return the TLS settings, or None for ``amqp``; certificate and host name are always verified.

        Trusts ``cafile`` alone when given, else the system's authorities. Raises ``ConfigError`` when a file cannot be
        used.
        """
        if not self.tls:
            return None
        import ssl  # loads the machine's OpenSSL, which a plain connection does not need

        try:
            context = ssl.create_default_context(cafile=self.options.get("cafile"))
            if certfile := self.options.get("certfile"):
                context.load_cert_chain(certfile, self.options.get("keyfile"))
        except OSError as error:  # ssl.SSLError is one too
            files = ", ".join(f"{name}={self.options[name]}" for name in TLS_OPTIONS if name in self.options)
            raise ConfigError(
                f"broker URL {self.masked}: {files or 'the system CA files'}: {error.strerror or error}"
            ) from error
        return context


def from_env(environ: Mapping[str, str]) -> BrokerUrl:
    """Read the broker's URL from the environment.

    The first that is set and not empty counts: ``RABBITMQ_URL``, ``RABBITMQ_URL_FILE`` (a file that holds the URL),
    ``AMQP_URL``, ``CLOUDAMQP_URL``. Raises ``ConfigError`` when none is, or when it cannot be read.
    """
    if text := secret_from(environ, "RABBITMQ_URL"):
        return BrokerUrl.parse(text)
    for name in ("AMQP_URL", "CLOUDAMQP_URL"):
        if text := environ.get(name, "").strip():
            return BrokerUrl.parse(text)
    raise ConfigError(f"no broker URL: set RABBITMQ_URL, for example {EXAMPLE}")


def _split(text: str, shown: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises for a port that is no number
    except ValueError as error:
        # not chained: the cause's text may quote a piece of the password
        raise ConfigError(f"broker URL {shown}: {_reason(error)} (expected {EXAMPLE})") from None
    return parts


def _reason(error: ValueError) -> str:
    """Say what urlsplit found without its words, which quote parts of the URL."""
    if "port" in str(error).lower():
        return "the port is not a number from 1 to 65535; is a special character in the password not percent-encoded?"
    return "cannot be read; write special characters in user and password percent-encoded"


def _problems(parts: SplitResult, options: Mapping[str, str]) -> Iterator[str]:
    if parts.scheme not in PORTS:
        yield f"{parts.scheme or 'nothing'} is not a scheme we know (expected {EXAMPLE}, or amqps)"
    if not parts.hostname:
        yield f"the host is missing (expected {EXAMPLE})"
    if parts.port == 0:
        yield "port 0 cannot be connected to"
    if parts.fragment:
        yield "has a # part; write # in a password or virtual host as %23"
    yield from _option_problems(parts.scheme, options)


def _option_problems(scheme: str, options: Mapping[str, str]) -> Iterator[str]:
    for name, value in options.items():
        if name not in OPTIONS:
            yield f"unknown option {name}; known are {', '.join(OPTIONS)}"
        elif name in TLS_OPTIONS and scheme == "amqp":
            yield f"option {name} needs amqps"
        elif name == "heartbeat" and not (value.isascii() and value.isdigit() and int(value) <= MAX_HEARTBEAT):
            yield f"heartbeat must be a whole number of seconds from 0 to {MAX_HEARTBEAT}"
    if "keyfile" in options and "certfile" not in options:
        yield "option keyfile needs certfile"


def _masked(text: str) -> str:
    """Hide everything that could be a password in a URL that may not even be one; options are hidden too."""
    plain = "".join(character for character in text if character.isprintable())[:300]
    if "@" not in plain:  # user:password without a host looks like host:port
        plain = re.sub(r"^([^:/]*://)?([^:/\[\]]*):(?!\d+(/|\?|$)).*", r"\1\2:***", plain)
    return re.sub(r"^([^:/@]*://)?([^:@/]*):.*@", r"\1\2:***@", plain).partition("?")[0] or "(empty)"
