"""Files that go with a mail: which are taken, which are waited for, which never go, and what the reader gets."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import Reject, Retry, SchemaError
from penstock_jobs.email import SEND_EMAIL, Attachment
from services.mailer.attachments import Attachments
from services.mailer.letters import letter
from services.mailer.ports import File, Missing, Unusable
from services.mailer.templates import Text
from tests.support.mailing import MOST, SENDER, a_job, a_mailer, read_back

PDF = b"%PDF-1.7 not really\n"
NORTH = Attachment(folder="2026-07", file="north-1.pdf")


@pytest.fixture(name="root")
def _root(tmp_path: Path) -> Path:
    """A folder with a report in it, beside which a secret lies."""
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "files/2026-07").mkdir(parents=True)
    (tmp_path / "files/2026-07/north-1.pdf").write_bytes(PDF)
    return tmp_path / "files"


def read(root: Path, *wanted: Attachment, most: int = MOST) -> list[File]:
    return Attachments(root, most).read(wanted)


class Kept:
    """Takes every mail."""

    def __init__(self) -> None:
        self.mails: list[bytes] = []

    async def send(self, mail: bytes, _sender: str, _recipient: str) -> None:
        self.mails.append(mail)


async def test_a_file_arrives_as_it_is_under_the_name_it_was_given(root: Path) -> None:
    post = Kept()
    shown = NORTH.model_copy(update={"name": "Umsätze im Juli.pdf"})
    await a_mailer(post, root).send_email(a_job("1", shown, NORTH))
    mail = read_back(post.mails[0])
    found = [(part.get_filename(), part.get_content_type(), part.get_content()) for part in mail.iter_attachments()]
    assert found == [
        ("Umsätze im Juli.pdf", "application/pdf", PDF),
        ("north-1.pdf", "application/pdf", PDF),
    ]
    plain = mail.get_body(("plain",))
    assert plain is not None
    assert "Dear Ada" in plain.get_content()


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("a.pdf", "application/pdf"),
        ("a.CSV", "text/csv"),
        ("a.xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
        ("a.csv.gz", "application/gzip"),
        ("a.png", "image/png"),
        ("a.eml", "application/octet-stream"),
        ("a.never-heard-of", "application/octet-stream"),
        ("a", "application/octet-stream"),
    ],
)
def test_the_content_type_follows_from_the_files_name(root: Path, name: str, content_type: str) -> None:
    (root / "2026-07" / name).write_bytes(b"x")
    assert read(root, Attachment(folder="2026-07", file=name, name="shown.txt"))[0].content_type == content_type


async def test_a_file_that_is_not_there_yet_is_tried_again_and_goes_when_it_is(root: Path) -> None:
    post, later = Kept(), Attachment(folder="2026-08", file="later.pdf")
    mailer = a_mailer(post, root)
    with pytest.raises(Retry, match=r"attachment 2026-08/later\.pdf is not there"):
        await mailer.send_email(a_job("1", NORTH, later))
    (root / "2026-08").mkdir()
    (root / "2026-08/later.pdf").write_bytes(PDF)
    await mailer.send_email(a_job("1", NORTH, later))
    assert len(post.mails) == 1


def test_a_file_that_is_named_after_a_ticks_job_can_be_named() -> None:
    name = "north-schedule%3Anightly%3A2026-07-01T00%3A00%3A00Z.pdf"
    assert Attachment(folder="2026-07", file=name).file == name


def test_a_folder_of_attachments_that_is_not_there_yet_is_waited_for_as_well(tmp_path: Path) -> None:
    with pytest.raises(Missing):
        read(tmp_path / "nowhere", NORTH)


@pytest.mark.parametrize("link", ["2026-07/away", "away/secret.txt", "2026-07/near"])
def test_no_link_is_followed_wherever_it_leads(root: Path, link: str) -> None:
    (root / "2026-07/away").symlink_to(root.parent / "secret.txt")
    (root / "2026-07/near").symlink_to("north-1.pdf")
    (root / "away").symlink_to(root.parent)
    folder, _, file = link.partition("/")
    with pytest.raises(Unusable, match="leads elsewhere"):
        read(root, Attachment(folder=folder, file=file))


def test_what_is_no_file_never_goes_and_nobody_waits_for_it(root: Path) -> None:
    os.mkfifo(root / "2026-07/pipe")
    (root / "2026-07/folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(Unusable, match="it is no file"):
            read(root, Attachment(folder="2026-07", file=name))
    with pytest.raises(Unusable, match="leads elsewhere"):
        read(
            root, Attachment(folder="2026-07", file="north-1.pdf").model_copy(update={"folder": "2026-07/north-1.pdf"})
        )


def test_all_files_of_a_mail_together_are_held_to_the_limit(root: Path) -> None:
    assert len(read(root, NORTH, NORTH, most=2 * len(PDF))) == 2
    with pytest.raises(Unusable, match="over 39 bytes"):
        read(root, NORTH, NORTH, most=2 * len(PDF) - 1)


async def test_a_file_with_other_content_than_was_meant_rejects_the_job(root: Path) -> None:
    right, wrong = hashlib.sha256(PDF).hexdigest(), hashlib.sha256(b"").hexdigest()
    assert read(root, NORTH.model_copy(update={"sha256": right}))[0].content == PDF
    post = Kept()
    with pytest.raises(Reject, match=f"not the one that was meant: its SHA-256 is {right}, not {wrong}"):
        await a_mailer(post, root).send_email(a_job("1", NORTH.model_copy(update={"sha256": wrong})))
    assert post.mails == []


@pytest.mark.parametrize(
    "attachment",
    [
        '{"folder": "..", "file": "secret.txt"}',
        '{"folder": "2026-07", "file": "../../secret.txt"}',
        '{"folder": "/etc", "file": "passwd"}',
        '{"folder": "2026-07", "file": ".hidden"}',
        '{"folder": "2026-07"}',
        '{"folder": "a", "file": "b", "name": "a/b.pdf"}',
        '{"folder": "a", "file": "b", "name": "a\\r\\nBcc: x@y.z"}',
        '{"folder": "a", "file": "b", "name": "invoice\\u202efdp.exe"}',
        '{"folder": "a", "file": "b", "sha256": "abc"}',
        '{"folder": "a", "file": "b", "sha-256": "a misspelt one"}',
        ", ".join(['{"folder": "a", "file": "b"}'] * 11),
    ],
)
def test_names_that_climb_or_deceive_and_too_many_files_break_the_schema(attachment: str) -> None:
    with pytest.raises(SchemaError, match="attachments"):
        SEND_EMAIL.decode(f'{{"to": "a@b.c", "template": "welcome", "attachments": [{attachment}]}}'.encode())


@given(st.binary(max_size=500), st.sampled_from(["text/csv", "application/pdf", "application/octet-stream"]))
def test_whatever_is_in_a_file_arrives(content: bytes, content_type: str) -> None:
    mail = letter(a_job(), Text("s", "p", "<p>p</p>"), SENDER, [File("ä b.x", content_type, content)])
    assert mail.isascii()
    assert max(map(len, mail.split(b"\r\n"))) <= 200
    (part,) = read_back(mail).iter_attachments()
    assert part.get_filename() == "ä b.x"
    assert part.get_payload(decode=True) == content
