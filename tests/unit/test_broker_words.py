"""What pika and the broker say becomes one line of Penstock's own, of the right kind and without a password."""

from __future__ import annotations

import ssl

import pytest
from pika import exceptions

from penstock.brokers.translate import Closing, closing, refused, unreachable
from penstock.errors import AccessRefused, BrokerError, ConnectionLost, TooLarge, TopologyMismatch

PEER = "amqp://mailer:***@broker:5672/%2F"

#: Seen on RabbitMQ 3.10.8 and 4.3.6.
WORDS = [
    (404, "NOT_FOUND - no exchange 'jobs' in vhost '/'", TopologyMismatch),
    (404, "NOT_FOUND - no queue 'jobs.email' in vhost '/'", TopologyMismatch),
    (406, "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost '/'", TopologyMismatch),
    (406, "PRECONDITION_FAILED - message size 9 is larger than configured max size 8", TooLarge),
    (406, "PRECONDITION_FAILED - unknown delivery tag 3", ConnectionLost),
    (406, "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value", ConnectionLost),
    (403, "ACCESS_REFUSED - access to exchange 'jobs' in vhost '/' refused for user 'mailer'", AccessRefused),
    (403, "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN.", AccessRefused),
    (530, "NOT_ALLOWED - vhost nope not found", AccessRefused),
    (530, "NOT_ALLOWED - access to vhost '/' refused for user 'a': connection limit (1) is reached", ConnectionLost),
    (541, "INTERNAL_ERROR - access to vhost '/' refused for user 'a': vhost '/' is down", ConnectionLost),
    (320, "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'", ConnectionLost),
    (530, "NOT_ALLOWED - attempt to reuse consumer tag 'c'", BrokerError),
]


@pytest.mark.parametrize(("code", "words", "kind"), WORDS)
def test_a_reply_becomes_one_line_of_its_kind(code: int, words: str, kind: type[BrokerError]) -> None:
    error = refused(code, words, PEER)
    assert type(error) is kind
    assert str(error).startswith(f"{PEER}: ")
    assert "\n" not in str(error)


def test_what_is_missing_comes_with_what_to_do() -> None:
    error = refused(404, "NOT_FOUND - no queue 'jobs.email' in vhost 'shop'", PEER)
    assert str(error) == f"{PEER}: queue 'jobs.email' is missing in vhost 'shop': run `penstock topology apply`"


@pytest.mark.parametrize(
    ("reason", "kind", "says"),
    [
        (exceptions.StreamLostError("EOF"), ConnectionLost, "the connection broke"),
        (exceptions.AMQPHeartbeatTimeout("x"), ConnectionLost, "no heartbeat"),
        (exceptions.ConnectionClosedByClient(200, "bye"), ConnectionLost, "on our side"),
        (exceptions.ChannelClosedByClient(0, "bye"), ConnectionLost, "on our side"),
        (exceptions.ConnectionClosedByBroker(530, "NOT_ALLOWED - vhost x not found"), AccessRefused, "vhost x"),
        (exceptions.IncompatibleProtocolError("x"), ConnectionLost, "no AMQP 0-9-1 broker"),
        (exceptions.AuthenticationError("PLAIN"), AccessRefused, "login mechanism"),
        (exceptions.ProbableAuthenticationError("x"), ConnectionLost, "during the login"),
        (KeyError("ctag\n1"), ConnectionLost, "ctag"),
        (None, ConnectionLost, "the connection broke"),
    ],
)
def test_every_end_of_a_connection_is_told_in_one_line(
    reason: BaseException | None, kind: type[BrokerError], says: str
) -> None:
    error = closing(reason, PEER).error
    assert type(error) is kind
    assert says in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionRefusedError(111, "Connection refused"), ConnectionLost),
        (OSError("no route"), ConnectionLost),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), ConnectionLost),
        (ssl.SSLCertVerificationError(1, "certificate verify failed"), AccessRefused),
    ],
)
def test_only_a_certificate_that_is_not_trusted_is_a_refusal(error: OSError, kind: type[BrokerError]) -> None:
    assert type(unreachable(error, PEER)) is kind


def channel_closed(words: str) -> Closing:
    return closing(exceptions.ChannelClosedByBroker(403, words), PEER)


def test_the_publishes_to_the_named_exchange_are_blamed_and_no_others() -> None:
    end = channel_closed("NOT_FOUND - no exchange 'nowhere' in vhost '/'")
    assert end.blames("nowhere", "a", 1, alone=False)
    assert not end.blames("jobs", "a", 1, alone=True)


def test_with_topic_permissions_the_key_decides() -> None:
    end = channel_closed("ACCESS_REFUSED - access to topic 'a.b' in exchange 'jobs' in vhost '/' refused for user 'u'")
    assert end.blames("jobs", "a.b", 1, alone=False)
    assert not end.blames("jobs", "a.c", 1, alone=False)


def test_a_message_that_is_too_large_is_known_by_its_size() -> None:
    end = channel_closed("PRECONDITION_FAILED - message size 9000 is larger than configured max size 8000")
    assert end.blames("jobs", "a", 9000, alone=False)
    assert not end.blames("jobs", "a", 10, alone=True)


def test_where_the_broker_names_nothing_only_a_lonely_publish_is_meant() -> None:
    end = channel_closed("PRECONDITION_FAILED - invalid something")
    assert end.blames("jobs", "a", 1, alone=True)
    assert not end.blames("jobs", "a", 1, alone=False)


def test_the_end_of_the_connection_blames_nobody() -> None:
    end = closing(exceptions.ConnectionClosedByBroker(320, "CONNECTION_FORCED - exchange 'jobs'"), PEER)
    assert not end.blames("jobs", "a", 1, alone=True)
