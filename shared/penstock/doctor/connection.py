"""Whether the broker answers over AMQP and lets this login into this virtual host."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from penstock.brokers.pika_driver import PikaBroker
from penstock.doctor.findings import Finding, failed, unseen, well, wrong
from penstock.errors import AccessRefused, BrokerError, ConfigError
from penstock.urls import BrokerUrl

_NAME = "penstock doctor"

#: How the broker's refusal of a virtual host ends: with AMQP's code for it.
_NOT_ALLOWED = "(530)"


async def check(url: BrokerUrl, patience: timedelta) -> Sequence[Finding]:
    """Connect once, and say how far it went: to the broker, through the login, into the virtual host."""
    try:
        link = await PikaBroker(url, connect_timeout=patience).connect(_NAME)
    except ConfigError as error:  # certificate files
        return [*failed("broker", error), *_unseen("login", "vhost")]
    except AccessRefused as error:
        return _refused(url, error)
    except BrokerError as error:
        cure = "start it, or correct host and port in RABBITMQ_URL"
        return [wrong("broker", str(error), cure, error.exit_code), *_unseen("login", "vhost")]
    await link.close()
    return [_answers(url), well("login", url.user), well("vhost", url.vhost)]


def _refused(url: BrokerUrl, error: AccessRefused) -> list[Finding]:
    words, code = str(error), error.exit_code
    if words.endswith(_NOT_ALLOWED):
        cure = (
            f"correct the path of RABBITMQ_URL, or rabbitmqctl add_vhost and set_permissions: {url.user!r} needs access"
        )
        return [_answers(url), well("login", url.user), wrong("vhost", words, cure, code)]
    if "certificate" in words:
        cure = "name the authority that signed it with ?cafile= in RABBITMQ_URL, and the host it was made for"
        return [wrong("broker", words, cure, code), *_unseen("login", "vhost")]
    cure = "correct user and password in RABBITMQ_URL; penstock topology users sets passwords"
    return [_answers(url), wrong("login", words, cure, code), *_unseen("vhost")]


def _answers(url: BrokerUrl) -> Finding:
    return well("broker", f"answers at {url.host}:{url.port}{' over TLS' if url.tls else ''}")


def _unseen(*checks: str) -> list[Finding]:
    return [unseen(check, "not without the broker's answer over AMQP") for check in checks]
