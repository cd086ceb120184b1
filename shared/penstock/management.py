"""A small client of RabbitMQ's management HTTP API: what cannot be asked or set over AMQP."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from html import unescape
from types import TracebackType
from typing import Any, Self  # the API's JSON
from urllib.parse import quote, unquote, urlencode, urlsplit

import httpx2
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from penstock.errors import AccessRefused, BrokerError, ConfigError, ConnectionLost
from penstock.topology.access import NOTHING, Access
from penstock.topology.live import Live, live_from
from penstock.topology.policies import Policy
from penstock.urls import BrokerUrl

TIMEOUT = 10.0
TRIES = 3

_PORTS = {"http": 15672, "https": 15671}


@dataclass(frozen=True, slots=True)
class ManagementUrl:
    """Where the management API of a broker is, and whom to log in as."""

    base: str
    user: str
    password: str = field(repr=False)

    @classmethod
    def of(cls, url: BrokerUrl, at: str | None = None) -> ManagementUrl:
        """Read *at*, or take the host of *url* and the usual port. The login is that of *url* unless *at* has one.

        A broker that is spoken to through TLS is asked through TLS, so that the password does not travel in the open.
        Raises ``ConfigError`` for a URL that cannot be read.
        """
        scheme = "https" if url.tls else "http"
        host = f"[{url.host}]" if ":" in url.host else url.host
        usual = cls(f"{scheme}://{host}:{_PORTS[scheme]}", url.user, url.password)
        return usual._moved(at.strip()) if at and at.strip() else usual

    def _moved(self, text: str) -> ManagementUrl:
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise ConfigError("RABBITMQ_MANAGEMENT_URL: cannot be read; is the port a number?") from None
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ConfigError("RABBITMQ_MANAGEMENT_URL: expected http://user:password@host:15672 or https://…")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        moved = replace(self, base=f"{parts.scheme}://{host}:{port or _PORTS[parts.scheme]}{parts.path.rstrip('/')}")
        if parts.username is None:
            return moved
        return replace(moved, user=unquote(parts.username), password=unquote(parts.password or ""))


class Management:
    """One virtual host through the management API. Blocking; use it from one thread, and close it.

    Every call raises ``ConnectionLost`` when nothing answers (after short retries, where a repetition does no harm),
    ``AccessRefused`` for a refused login, a missing permission or a virtual host that does not exist, and
    ``BrokerError`` for anything else the API refuses.
    """

    def __init__(self, url: BrokerUrl, at: str | None = None, *, timeout: float = TIMEOUT, tries: int = TRIES) -> None:
        """The virtual host of *url*; *at* is the value of ``RABBITMQ_MANAGEMENT_URL``. Raises ``ConfigError``.

        *timeout*: seconds for an answer. *tries*: how often a question is put while nothing answers.
        """
        self._at = ManagementUrl.of(url, at)
        self._tries = tries
        self._vhost = quote(url.vhost, safe="")
        self._http = httpx2.Client(
            base_url=self._at.base,
            auth=(self._at.user, self._at.password),
            timeout=timeout,
            # To read the certificates of all authorities takes a sixth of a look: only where there is TLS.
            verify=url.ssl_context() or self._at.base.startswith("https:"),
            trust_env=False,  # a broker is not behind the proxy that leads out
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Idempotent."""
        self._http.close()

    def version(self) -> str:
        """The broker's version, such as ``4.3.6``."""
        return str(self._call("GET", "overview")["rabbitmq_version"])

    @property
    def at(self) -> str:
        """Where it answers and as whom, without the password."""
        return f"{self._at.base} as {self._at.user}"

    def read(self, path: str, **query: str | int) -> Any:
        """What ``GET /api/PATH`` answers; ``{vhost}`` in *path* stands for the virtual host."""
        filled = path.replace("{vhost}", self._vhost)
        return self._call("GET", f"{filled}?{urlencode(query)}" if query else filled)

    def clock_offset(self) -> timedelta:
        """How far the broker's clock is ahead of ours, to about a second: HTTP tells no more. Not repeated."""
        before = datetime.now(UTC)
        answer = self._requested("GET", "whoami", None, tries=1)
        self._answered(answer, "whoami")
        after = datetime.now(UTC)
        if (date := answer.headers.get("date")) is None:
            raise BrokerError(f"management API {self._at.base}: tells no time; does a proxy take the Date away?")
        theirs = parsedate_to_datetime(date) + timedelta(milliseconds=500)
        return theirs - (before + (after - before) / 2)

    def live(self) -> Live:
        """All exchanges, queues, bindings and policies of the virtual host."""
        return live_from(
            self._call("GET", f"exchanges/{self._vhost}"),
            # Without statistics, which lag by seconds behind what was just declared, but with counts of messages.
            self._call("GET", f"queues/{self._vhost}?disable_stats=true&enable_queue_totals=true"),
            self._call("GET", f"bindings/{self._vhost}"),
            self._call("GET", f"policies/{self._vhost}"),
            self._call("GET", f"operator-policies/{self._vhost}"),
        )

    def consumers(self, queue: str) -> list[str]:
        """The tags of those who consume *queue*; one that came within the last seconds may be missing."""
        found = self._call("GET", f"queues/{self._vhost}/{quote(queue, safe='')}").get("consumer_details", [])
        return [str(consumer["consumer_tag"]) for consumer in found]

    def put_policy(self, policy: Policy) -> None:
        """Set *policy*, new or over one of its name."""
        self._call(
            "PUT",
            f"policies/{self._vhost}/{quote(policy.name, safe='')}",
            {
                "pattern": policy.pattern,
                "apply-to": policy.apply_to,
                "definition": dict(policy.definition),
                "priority": policy.priority,
            },
        )

    def put_user(self, access: Access, password_hash: str) -> None:
        """Set a user's password hash, tags and permissions in the virtual host, new or over one of its name."""
        user = quote(access.user, safe="")
        self._call(
            "PUT",
            f"users/{user}",
            {
                "password_hash": password_hash,
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": ",".join(access.tags),
            },
        )
        permissions = {"configure": access.configure, "write": access.write, "read": access.read}
        self._call("PUT", f"permissions/{self._vhost}/{user}", permissions)
        for exchange, keys in access.topics.items():
            topic = {"exchange": exchange, "write": keys, "read": NOTHING}
            self._call("PUT", f"topic-permissions/{self._vhost}/{user}", topic)

    def publish(self, exchange: str, key: str, body: str, properties: Mapping[str, Any] | None = None) -> bool:
        """Publish as the form of the management UI does; whether a queue took it. Never repeated."""
        message = {"routing_key": key, "payload": body, "payload_encoding": "string", "properties": properties or {}}
        path = f"exchanges/{self._vhost}/{quote(exchange or 'amq.default', safe='')}/publish"
        return bool(self._call("POST", path, message)["routed"])

    def get(self, queue: str, count: int) -> Sequence[Mapping[str, Any]]:
        """Look at up to *count* messages of *queue*, which go back to it, marked as redelivered."""
        wish = {"count": count, "ackmode": "ack_requeue_true", "encoding": "auto"}
        found: Sequence[Mapping[str, Any]] = self._call(
            "POST", f"queues/{self._vhost}/{quote(queue, safe='')}/get", wish
        )
        return found

    def import_definitions(self, table: Mapping[str, Any]) -> None:
        """Import a ``definitions.json`` with virtual hosts and users; takes an administrator."""
        self._call("POST", "definitions", table)

    def _call(self, method: str, path: str, body: object = None) -> Any:
        """One request; what is safe to repeat is repeated while nothing answers."""
        return self._answered(self._requested(method, path, body, self._tries), path)

    def _requested(self, method: str, path: str, body: object, tries: int) -> httpx2.Response:
        again = httpx2.TransportError if method in ("GET", "PUT") else httpx2.ConnectError
        attempts = Retrying(
            retry=retry_if_exception_type(again),
            stop=stop_after_attempt(tries),
            wait=wait_random_exponential(multiplier=0.2, max=1),
            reraise=True,
        )
        try:
            return attempts(self._http.request, method, f"/api/{path}", json=body)
        except httpx2.HTTPError as error:
            raise ConnectionLost(
                f"management API {self._at.base}: no answer ({error}); is the broker's rabbitmq_management plugin on, "
                "and RABBITMQ_MANAGEMENT_URL right?"
            ) from error

    def _answered(self, answer: httpx2.Response, path: str) -> Any:
        where = f"management API {self._at.base}: "
        path = path.partition("?")[0]
        if answer.status_code in (401, 403):
            raise AccessRefused(
                f"{where}user {self._at.user!r} is refused at {path.partition('/')[0]}: {_reason(answer)}"
            )
        if answer.status_code == 404:
            raise AccessRefused(f"{where}{unquote(path)} does not exist, or user {self._at.user!r} may not see it")
        if not answer.is_success:
            raise BrokerError(f"{where}{unquote(path)}: {_reason(answer)} ({answer.status_code})")
        try:
            return answer.json() if answer.content else None
        except json.JSONDecodeError:
            raise ConnectionLost(f"{where}what answers there is not RabbitMQ's management API") from None


def _reason(answer: httpx2.Response) -> str:
    try:
        found = answer.json()
    except ValueError:
        return answer.reason_phrase
    reason = found.get("reason") or found.get("error") if isinstance(found, dict) else None
    return " ".join(unescape(str(reason or answer.reason_phrase)).split())[:300]
