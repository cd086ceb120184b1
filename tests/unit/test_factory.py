"""``MODULE:FACTORY`` to a worker: where it is looked for, and one line for each way to get it wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.errors import ConfigError, RegistrationError
from penstock.factory import load_object, opened

WORKING = """
from contextlib import asynccontextmanager
from penstock import Handlers, Worker

handlers = Handlers()
left = []

def build():
    return Worker(handlers, queue="email", slots=3)

@asynccontextmanager
async def opening():
    yield Worker(handlers, queue="email", slots=5)
    left.append(True)

async def coroutine():
    return build()

def nothing():
    return None

not_callable = 3
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project folder that is the current directory, forgotten by the interpreter afterwards."""
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def module(folder: Path, name: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(text)


async def test_a_function_that_returns_a_worker_builds_one(project: Path) -> None:
    module(project, "shop_a", WORKING)
    async with opened("shop_a:build") as worker:
        assert worker.slots == 3


async def test_a_context_manager_is_left_after_the_worker(project: Path) -> None:
    module(project, "shop_b", WORKING)
    async with opened("shop_b:opening") as worker:
        assert worker.slots == 5
        assert sys.modules["shop_b"].left == []
    assert sys.modules["shop_b"].left == [True]


@pytest.mark.parametrize("below", [".", "services/mailer"])
@pytest.mark.parametrize("root", [".", "src"])
async def test_the_project_around_the_current_directory_is_importable(
    project: Path, monkeypatch: pytest.MonkeyPatch, below: str, root: str
) -> None:
    module(project / root, "shop_c", WORKING)
    (project / below).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(project / below)
    async with opened("shop_c:build") as worker:
        assert worker.queue == "email"


def test_nothing_above_the_project_is_searched(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module(project, "shop_d", WORKING)
    inner = project / "inner"
    inner.mkdir()
    (inner / "pyproject.toml").touch()
    monkeypatch.chdir(inner)
    with pytest.raises(RegistrationError, match="no module 'shop_d'"):
        load_object("shop_d:build", "a name")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("shop_e", "'shop_e' is not MODULE:FACTORY, for example services.mailer.app:build"),
        ("shop_e:", "is not MODULE:FACTORY"),
        ("shop_missing:build", "no module 'shop_missing' in "),
        ("shop_e.more:build", "no module 'shop_e.more'"),
        ("shop_e:bild", "has no 'bild'"),
        ("shop_e:not_callable", "shop_e:not_callable is a int, not a function that builds a worker"),
        ("shop_e:nothing", "shop_e:nothing built a NoneType, not a penstock.Worker"),
        ("shop_e:coroutine", "shop_e:coroutine is an async def: make it a def"),
        ("shop_needs:build", r"cannot import shop_needs: it needs the module 'no_such_thing' \(.*shop_needs.py:2\)"),
        ("shop_raises:build", r"cannot import shop_raises: ZeroDivisionError: .* \(.*shop_raises.py:1\)"),
        ("shop_exits:build", "cannot import shop_exits: SystemExit: 3"),
        ("shop_syntax:build", r"cannot import shop_syntax: SyntaxError: .*shop_syntax.py, line 1"),
    ],
)
async def test_each_mistake_is_one_line_that_says_where(project: Path, target: str, words: str) -> None:
    module(project, "shop_e", WORKING)
    module(project, "shop_needs", "import os\nimport no_such_thing\n")
    module(project, "shop_raises", "1 / 0\n")
    module(project, "shop_exits", "raise SystemExit(3)\n")
    module(project, "shop_syntax", "def build(:\n")
    with pytest.raises(RegistrationError, match=words) as caught:
        async with opened(target):
            pass
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


async def test_what_the_factory_raises_is_left_as_it_is(project: Path) -> None:
    module(
        project, "shop_f", "from penstock import ConfigError\ndef build():\n    raise ConfigError('MAILER_SLOTS: no')\n"
    )
    with pytest.raises(ConfigError, match="MAILER_SLOTS"):
        async with opened("shop_f:build"):
            pass
