"""Fingerprints: letters of one trouble share one, whatever their particulars; memory stays bounded whatever comes."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.fingerprints import Fingerprint, normalised, own_frame
from penstock.letter_groups import Groups
from penstock.letters import DeadLetter
from penstock.message import Delivery, Message

TRACEBACK = """Traceback (most recent call last):
  File "/usr/lib/python3.11/asyncio/runners.py", line 44, in run
    return loop.run_until_complete(main)
  File "/app/services/mailer/handlers.py", line 31, in send_email
    await smtp.send(message)
  File "/app/.venv/lib/python3.11/site-packages/aiosmtplib/client.py", line 9, in send
    raise Refused
aiosmtplib.Refused: no
"""


def letter(error: str, died: int | None = None, **headers: object) -> DeadLetter:
    story = {"penstock-error": error, "penstock-reason": "exhausted", "penstock-error-type": "app.Refused", **headers}
    if died is not None:
        story["penstock-died"] = died
    message = Message(b"{}", story, message_id=error[:20], type="email.send")
    return DeadLetter.of(Delivery(message, "jobs.email.dead", "jobs.dead", "jobs.email", 1))


@pytest.mark.parametrize(
    ("error", "normal"),
    [
        ("user 17 took 2.5 s", "user N took N s"),
        ("no box ada@example.org", "no box <address>"),
        ("job 01a209f2-8588-7f54-ae89-1abf246d6430 is gone", "job <id> is gone"),
        ("cannot open /srv/reports/2026/a.pdf", "cannot open <path>"),
        ("GET https://example.org/a?b=1 refused", "GET <url> refused"),
        ("no field 'name of Ada' in \"that\"", "no field <text> in <text>"),
        ("at 0x7f3a61c0 and deadbeef01", "at <hex> and <hex>"),
        ("can't do that, don't ask", "can't do that, don't ask"),
        ("'user_name'", "'user_name'"),
        ("'user 17'", "<text>"),
        ("two\n  lines\x1b[2J", "two lines\x1b[NJ"),
        ("", ""),
    ],
)
def test_a_message_loses_its_particulars_and_nothing_else(error: str, normal: str) -> None:
    assert normalised(error) == normal


def test_the_frame_is_the_innermost_of_the_teams_own_without_line_or_folder() -> None:
    assert own_frame(TRACEBACK) == "services/mailer/handlers.py in send_email"
    assert own_frame(TRACEBACK.replace("line 31", "line 99").replace("/app/", "/srv/v2/")) == own_frame(TRACEBACK)


def test_without_an_own_frame_the_innermost_counts_and_without_any_there_is_none() -> None:
    foreign = "\n".join(line for line in TRACEBACK.splitlines() if "mailer" not in line)
    assert own_frame(foreign) == "site-packages/aiosmtplib/client.py in send"
    assert own_frame("at Mailer.send (mailer.js:12:3)") == ""


def test_letters_of_one_trouble_are_one_group_with_count_and_times() -> None:
    groups = Groups()
    for number in range(30):
        groups.add(letter(f"user {number} is away", died=1_000_000 + number))
    groups.add(letter("the disk is full", died=5))
    first, second = groups.largest_first
    assert (first.count, first.first, first.last) == (30, 1_000_000, 1_000_029)
    assert (first.fingerprint.message, first.kinds, len(first.ids)) == ("user N is away", ["email.send"], 5)
    assert (second.count, second.id) == (1, letter("the disk is full").fingerprint.id)
    assert first.id != second.id


def test_a_group_is_named_the_same_everywhere() -> None:
    assert Fingerprint("exhausted", "app.Refused", "user N is away", "").id == "7cbdfd91"


def test_however_many_groups_come_memory_stays_bounded_and_no_letter_is_left_out() -> None:
    groups = Groups(most=10)
    for number in range(500):
        groups.add(letter("x" * (number + 1)))
    found = groups.largest_first
    assert len(found) == 11
    assert sum(group.count for group in found) == 500
    assert (found[-1].id, found[-1].count) == ("", 490)


def test_ten_mebibytes_of_error_are_as_fast_as_one_kibibyte() -> None:
    for evil in ("a@" * 5_000_000, "'" * 10_000_000, "/" * 10_000_000, "1." * 5_000_000, "\x1b[" * 5_000_000):
        assert len(normalised(evil)) <= 200
        assert len(own_frame(evil)) <= 1000
        assert sys.getsizeof(letter(evil).fingerprint.message) < 2000


@given(st.text(), st.text(), st.text(), st.text())
def test_every_text_has_a_fingerprint_and_always_the_same(reason: str, kind: str, error: str, traceback: str) -> None:
    one, other = (Fingerprint.of(reason, kind, error, traceback) for _ in range(2))
    assert (one, one.id) == (other, other.id)
    assert len(one.id) == 8
