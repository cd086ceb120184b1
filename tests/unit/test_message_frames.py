"""Messages as frames: what is published is what is delivered, and what cannot be read costs a field, never more."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.brokers.frames import DELIVER, DeliveryDecoder, PublishEncoder, decode_confirm, encode_ack, encode_nack
from penstock.brokers.properties import body_size, decode_message, encode_content_header, renumber, seq_of
from penstock.errors import TooLarge, Unencodable
from penstock.headers import SEQ
from penstock.message import Message

FRAME_MAX = 4096

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
MESSAGES = st.builds(
    Message,
    st.binary(max_size=9000),
    st.dictionaries(TEXT, TEXT | st.integers(-5, 1 << 40), max_size=3),
    **dict.fromkeys(("message_id", "type", "content_type", "content_encoding"), st.none() | TEXT),
    **dict.fromkeys(("app_id", "correlation_id", "reply_to"), st.none() | TEXT),
    timestamp=st.none() | st.integers(0, 253_402_300_799),
)


def frames_of(raw: bytes) -> list[tuple[int, int, bytes]]:
    """Take *raw* apart by AMQP's framing alone: (type, channel, payload) each."""
    frames, at = [], 0
    while at < len(raw):
        kind, channel, size = struct.unpack_from(">BHI", raw, at)
        assert raw[at + 7 + size] == 0xCE
        frames.append((kind, channel, raw[at + 7 : at + 7 + size]))
        at += 8 + size
    return frames


def publish(message: Message, exchange: str = "jobs", key: str = "a.b", seq: int = 7) -> list[tuple[int, int, bytes]]:
    return frames_of(b"".join(PublishEncoder(3, FRAME_MAX).encode(message, exchange, key, seq)))


@settings(max_examples=60)
@given(MESSAGES, st.integers(1, 1 << 40))
def test_a_published_message_is_read_as_it_was(message: Message, seq: int) -> None:
    (_, _, header), *bodies = publish(message, seq=seq)[1:]
    body = b"".join(payload for _, _, payload in bodies)
    read = decode_message(header, body)
    assert body_size(header) == len(message.body)
    assert read.headers.pop(SEQ) == seq == seq_of(header)
    message.headers.pop(SEQ, None)
    assert read == message


@settings(max_examples=60)
@given(MESSAGES, st.integers(1, 1 << 40), st.integers(1, 1 << 40))
def test_another_number_is_all_that_renumbering_changes(message: Message, first: int, second: int) -> None:
    assert renumber(encode_content_header(message, first), second) == encode_content_header(message, second)


def test_a_publish_is_mandatory_and_persistent() -> None:
    (kind, channel, method), (_, _, header), *_ = publish(Message(b"{}", content_type=None))
    assert (kind, channel, method) == (1, 3, b"\x00\x3c\x00\x28\x00\x00\x04jobs\x03a.b\x01")
    assert header.endswith(b"\x02")
    assert struct.unpack_from(">H", header, 12)[0] & 1 << 12


@pytest.mark.parametrize("size", [0, 1, FRAME_MAX - 8, FRAME_MAX - 7, 3 * FRAME_MAX])
def test_a_body_is_cut_into_frames_that_fit(size: int) -> None:
    bodies = publish(Message(b"x" * size))[2:]
    assert [kind for kind, _, _ in bodies] == [3] * -(-size // (FRAME_MAX - 8))
    assert all(0 < len(payload) <= FRAME_MAX - 8 for _, _, payload in bodies)
    assert b"".join(payload for _, _, payload in bodies) == b"x" * size


def test_headers_fill_one_frame_and_not_a_byte_more() -> None:
    spare = FRAME_MAX - 8 - len(encode_content_header(Message(b"", {"h": ""}), 1))
    assert len(publish(Message(b"", {"h": "x" * spare}))) == 2
    with pytest.raises(TooLarge):
        publish(Message(b"", {"h": "x" * (spare + 1)}))


@pytest.mark.parametrize(
    ("message", "exchange", "key"),
    [
        (Message(b""), "jobs", "k" * 256),
        (Message(b""), "e" * 256, "k"),
        (Message(b""), "jobs", "\udcff"),
        (Message(b"", message_id="i" * 256), "jobs", "k"),
        (Message(b"", type="t" * 256), "jobs", "k"),
        (Message(b"", timestamp=-1), "jobs", "k"),
        (Message(b"", timestamp=1 << 64), "jobs", "k"),
        (Message(b"", {"h" * 256: 1}), "jobs", "k"),
        (Message(b"", {"h": {1, 2}}), "jobs", "k"),
        (Message(b"", {"CC": "k"}), "jobs", "k"),
    ],
)
def test_what_amqp_cannot_carry_is_refused_before_the_wire(message: Message, exchange: str, key: str) -> None:
    with pytest.raises(Unencodable):
        publish(message, exchange, key)


def test_a_key_of_255_bytes_and_one_in_umlauts_are_carried() -> None:
    assert publish(Message(b""), key="k" * 255)[0][2].endswith(b"\xff" + b"k" * 255 + b"\x01")
    assert publish(Message(b""), key="ä")[0][2].endswith(b"\x02\xc3\xa4\x01")


def header_of(flags: int, properties: bytes) -> bytes:
    return struct.pack(">HHQH", 60, 0, 0, flags) + properties


def test_a_property_that_cannot_be_decoded_is_none_and_the_others_are_read() -> None:
    table = b"\x01aT" + struct.pack(">Q", 1 << 63) + b"\x01bS\x00\x00\x00\x01\xff" + b"\x01ct\x01"
    properties = b"\x01\xff" + struct.pack(">I", len(table)) + table
    properties += b"\x02\xc3\x28" + struct.pack(">Q", 1_700_000_000_000) + b"\x02\xff\xfe" + b"\x03app"
    message = decode_message(header_of(1 << 15 | 1 << 13 | 1 << 7 | 1 << 6 | 1 << 5 | 1 << 3, properties), b"{}")
    assert message == Message(b"{}", {"a": None, "b": b"\xff", "c": True}, content_type=None, app_id="app")


def test_properties_penstock_has_no_use_for_are_passed_over() -> None:
    properties = b"\x02\x09\x0560000\x02id\x05guest\x03app\x01x"
    message = decode_message(header_of(1 << 12 | 1 << 11 | 1 << 8 | 1 << 7 | 1 << 4 | 1 << 3 | 1 << 2, properties), b"")
    assert message == Message(b"", content_type=None, message_id="id", app_id="app")


def test_further_property_flags_are_passed_over() -> None:
    message = decode_message(header_of(1 << 7 | 1, b"\x00\x01\x00\x02\x02id"), b"")
    assert message.message_id == "id"


@given(st.binary(max_size=80))
def test_a_content_header_from_anywhere_never_raises(raw: bytes) -> None:
    assert decode_message(raw, b"body").body == b"body"
    assert decode_message(header_of(0xFFFC, raw), b"body").body == b"body"


@settings(max_examples=60)
@given(MESSAGES, st.data())
def test_a_content_header_cut_short_keeps_what_came_before(message: Message, data: st.DataObject) -> None:
    whole = encode_content_header(message, 1)
    read = decode_message(whole[: data.draw(st.integers(0, len(whole)))], message.body)
    for name in ("message_id", "type", "timestamp", "app_id", "content_type"):
        assert getattr(read, name) in (None, getattr(message, name))


def deliver(exchange: bytes, key: bytes, tag: int = 5, redelivered: int = 0) -> bytes:
    names = bytes((len(exchange),)) + exchange + bytes((len(key),)) + key
    return DELIVER + b"\x04ctag" + struct.pack(">QB", tag, redelivered) + names


def test_a_delivery_says_where_it_came_by_and_how_often() -> None:
    header = encode_content_header(Message(b"", {"x-delivery-count": 2}), 1)
    delivery = DeliveryDecoder("q").decode(deliver(b"jobs", b"a.b", 9, 1), header, b"{}")
    assert (delivery.queue, delivery.exchange, delivery.key, delivery.tag) == ("q", "jobs", "a.b", 9)
    assert (delivery.redelivered, delivery.deliveries) == (True, 2)


@pytest.mark.parametrize("count", [-1, True, "3", None, 1.5, [1]])
def test_a_delivery_count_that_is_none_counts_as_zero(count: Any) -> None:
    header = encode_content_header(Message(b"", {"x-delivery-count": count}), 1)
    assert DeliveryDecoder("q").decode(deliver(b"", b"q"), header, b"").deliveries == 0


def test_a_key_that_is_not_utf8_is_shown_with_replacement_characters() -> None:
    decoder = DeliveryDecoder("q")
    header = encode_content_header(Message(b""), 1)
    for _ in range(2):
        delivery = decoder.decode(deliver(b"ex\xff", b"\xc3\x28.b"), header, b"")
        assert (delivery.exchange, delivery.key) == ("ex�", "�(.b")


def test_answers_are_method_frames_of_the_channel() -> None:
    ack, nack = frames_of(encode_ack(2, 1 << 40, True)), frames_of(encode_nack(2, 5, True))
    assert [(kind, channel) for kind, channel, _ in (*ack, *nack)] == [(1, 2), (1, 2)]
    assert decode_confirm(ack[0][2]) == (1 << 40, True)
    assert decode_confirm(frames_of(encode_ack(2, 3, False))[0][2]) == (3, False)
    assert nack[0][2] == b"\x00\x3c\x00\x78" + struct.pack(">QB", 5, 2)
    assert frames_of(encode_nack(2, 5, False))[0][2][-1] == 0
