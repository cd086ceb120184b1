"""Dead letters edited by patch and by editor: the next copy of the same job, or nothing changed at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.letters import AUDIT, DEAD, WORK, audit, dead, lying, told
from tests.support.working import LEVELS, depth, empty, foreign, put, take

EMAIL = ("--queue", "email")


@pytest.fixture(autouse=True)
async def nothing_waits(url: str) -> None:
    """Every test finds empty queues."""
    await empty(url, WORK, DEAD, AUDIT, "jobs.unrouted", *LEVELS)


async def a_letter(url: str, body: bytes = b'{"to": "nobody", "template": "welcome"}', **properties: Any) -> None:
    """One dead letter of the catalogue's kind ``email.send``, called ``wrong``."""
    story = {"penstock-reason": "schema", "penstock-copy": 2, "penstock-replays": 3, "penstock-error": "to: no address"}
    async with foreign(url) as channel:
        fields = {"message_id": "wrong", "type": "email.send", "headers": story} | properties
        await put(channel, WORK, body, "jobs.dead", **fields)


async def test_an_edited_letter_is_the_next_copy_of_the_same_job_with_its_story(url: str) -> None:
    await a_letter(url)
    done = await dead(url, "edit", "wrong", *EMAIL, "--patch", '{"to": "ada@example.org"}', "--because", "typo")
    assert done.code == 0, done.err
    assert '+  "to": "ada@example.org"' in done.out
    [letter] = await told(url, "show", "wrong", *EMAIL)
    assert (letter["copy"], letter["replays"], letter["reason"]) == (3, 0, "schema")
    assert orjson.loads(letter["arguments"]) == {"to": "ada@example.org", "template": "welcome"}
    assert " edited by " in letter["history"][-1]
    begins, ends = await audit(url)
    assert (begins["action"], begins["ids"], begins["because"]) == ("edit", ["wrong"], "typo")
    assert (ends["stage"], ends["count"], ends["run"]) == ("ends", 1, begins["run"])


async def test_an_edit_can_let_the_job_run_at_once_and_change_its_kind(url: str) -> None:
    await a_letter(url, type="emial.send")
    patch = '[{"op": "test", "path": "/to", "value": "nobody"}, {"op": "replace", "path": "/to", "value": "a@b.org"}]'
    done = await told(url, "edit", "wrong", *EMAIL, "--kind", "email.send", "--patch", patch, "--replay")
    assert (done["changed"], done["replayed"]) == (True, True)
    async with foreign(url) as channel:
        job = await take(channel, WORK)
    assert (job.type, job.message_id, job.headers["penstock-copy"]) == ("email.send", "wrong", 3)
    assert orjson.loads(job.body)["to"] == "a@b.org"
    assert await depth(url, DEAD) == 0


async def test_an_editor_edits_and_what_it_leaves_broken_is_kept(url: str, tmp_path: Path) -> None:
    await a_letter(url)
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/nobody/ada@example.org/" "$1"\n')
    editor.chmod(0o700)
    done = await dead(url, "edit", "wrong", *EMAIL, EDITOR=str(editor))
    assert done.code == 0, done.err
    editor.write_text('#!/bin/sh\necho "{broken" > "$1"\n')
    broken = await dead(url, "edit", "wrong", *EMAIL, EDITOR=str(editor), TMPDIR=str(tmp_path))
    assert (broken.code, "your text is in" in broken.err) == (2, True)
    [letter] = await told(url, "show", "wrong", *EMAIL)
    assert '"ada@example.org"' in letter["arguments"]
    unchanged = await dead(url, "edit", "wrong", *EMAIL, EDITOR="true")
    assert (unchanged.code, unchanged.out) == (0, "nothing to change\n")


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (("wrong", "--patch", '{"to": 5}'), 2, "do not fit email.send: to: "),
        (("wrong", "--patch", '{"to": '), 2, "the patch cannot be read as JSON"),
        (("wrong", "--patch", '[{"op": "remove", "path": "/nothing"}]'), 2, "operation 1 of the patch: there is no"),
        (("wrong", "--args", "[]", "--no-check"), 2, "object"),
        (("wrong", "--args", '{"x": NaN}', "--no-check"), 2, "not JSON"),
        (("wrong", "--patch", "[1e999]"), 2, "op is one of"),
        (("wrong", "--kind", "email.none", "--patch", "{}"), 2, "no kind 'email.none'"),
        (("wrong", "--kind", "No!", "--patch", "{}"), 2, "cannot be a kind"),
        (("wrong", "--args", "{}", "--patch", "{}"), 2, "cannot be given together"),
        (("nobody", "--patch", "{}"), 2, "no dead letter with the id 'nobody'"),
        (("wrong", "--args", "@/nowhere"), 2, "cannot read /nowhere"),
    ],
)
async def test_an_edit_that_cannot_be_meant_changes_nothing(
    url: str, words: tuple[str, ...], code: int, why: str
) -> None:
    await a_letter(url)
    refused = await dead(url, "edit", *words, *EMAIL)
    assert (refused.code, len(refused.err.splitlines())) == (code, 1)
    assert why in refused.err
    assert await lying(url) == ["wrong"]
    assert await depth(url, AUDIT) == 0


async def test_of_two_letters_of_one_job_the_copy_has_to_be_named(url: str) -> None:
    await a_letter(url)
    await a_letter(url, headers={"penstock-copy": 3})
    refused = await dead(url, "edit", "wrong", *EMAIL, "--patch", '{"to": "a@b.org"}')
    assert (refused.code, "copy 2 in jobs.email.dead, copy 3 in" in refused.err) == (2, True)
    assert (await dead(url, "edit", "wrong", *EMAIL, "--copy", "2", "--patch", '{"to": "a@b.org"}')).code == 0
