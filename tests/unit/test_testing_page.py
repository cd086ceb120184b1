"""The example of docs/testing.md, done as a reader does it: the files are read from the page itself."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()


async def test_the_tests_of_the_page_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = dict(re.findall(r"^```\w+\n# (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
    assert files.keys() == {"invoices.py", "schedules.yaml", "test_invoices.py"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    tests = [test for _, test in inspect.getmembers(importlib.import_module("test_invoices"), inspect.isfunction)]
    written = [test for test in tests if test.__name__.startswith("test_")]
    assert len(written) == 2
    for test in written:
        await test()


def test_every_property_that_the_page_names_exists() -> None:
    from penstock.testing import WorkerTest

    rows = re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"(?:t\.|`)(\w+)[(`]", row)} - {"t"}
    assert {"publish", "ticks", "dead", "unrouted"} <= named
    assert [name for name in named if not hasattr(WorkerTest, name)] == []
