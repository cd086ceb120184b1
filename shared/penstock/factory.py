"""From ``MODULE:FACTORY`` to a worker that is ready to run."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import ModuleType

from penstock.errors import RegistrationError
from penstock.worker import Worker

#: What a project's own folder holds.
_PROJECT = ("pyproject.toml", "setup.py", ".git")


@asynccontextmanager
async def opened(target: str) -> AsyncIterator[Worker]:
    """The worker that *target* builds: its factory returns a ``Worker``, or an async context manager that yields one.

    The context is left after the block. Raises ``RegistrationError`` in one line when *target* cannot be imported or
    builds something else; what the factory itself raises is left as it is.
    """
    built = load(target)()
    if isinstance(built, AbstractAsyncContextManager):
        async with built as worker:
            yield _checked(worker, target)
    else:
        yield _checked(built, target)


def load(target: str) -> Callable[[], object]:
    """The factory named by *target*. Raises ``RegistrationError``."""
    factory = load_object(target, "MODULE:FACTORY, for example services.mailer.app:build")
    if not callable(factory):
        raise RegistrationError(f"{target} is a {type(factory).__name__}, not a function that builds a worker")
    return factory


def load_object(target: str, expected: str) -> object:
    """The object named by *target* (``MODULE:NAME``), imported from the project around the current directory too.

    Raises ``RegistrationError`` in one line: not the *expected* form, no such module, no such name, or whatever the
    import raised, with the place.
    """
    module_name, colon, attribute = target.partition(":")
    if not (module_name and colon and attribute):
        raise RegistrationError(f"{target!r} is not {expected}")
    find_project(module_name)
    module = _imported(module_name)
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise RegistrationError(f"module {module_name} ({_file(module)}) has no {attribute!r}") from None


def find_project(module_name: str) -> None:
    """Let *module_name* be imported from the project around the current directory. Idempotent.

    A console script, unlike ``python -m``, does not have the current directory on its path.
    """
    top = module_name.partition(".")[0]
    for root in _roots(Path.cwd()):
        if (root / top).is_dir() or (root / f"{top}.py").is_file():
            if str(root) not in sys.path:
                sys.path.insert(0, str(root))
            return


def _roots(here: Path) -> Iterator[Path]:
    """The current directory and its parents up to the project's own, each with its ``src``."""
    for folder in (here, *here.parents):
        yield folder
        yield folder / "src"
        if any((folder / name).exists() for name in _PROJECT):
            return


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            raise RegistrationError(f"no module {missing!r} in {Path.cwd()} or among the installed packages") from None
        raise RegistrationError(f"cannot import {name}: it needs the module {missing!r}{_place(error)}") from error
    except (Exception, SystemExit) as error:
        words = f"{type(error).__name__}: {error}"
        raise RegistrationError(f"cannot import {name}: {words}{_place(error)}") from error


def _place(error: BaseException) -> str:
    """Where in the imported code it happened; a syntax error says that itself."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _machinery(frame.filename)]
    if isinstance(error, SyntaxError) or not frames:
        return ""
    return f" ({frames[-1].filename}:{frames[-1].lineno})"


def _machinery(filename: str) -> bool:
    return filename.startswith("<frozen ") or filename in (__file__, importlib.__file__)


def _file(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or "a folder without __init__.py"


def _checked(built: object, target: str) -> Worker:
    if isinstance(built, Worker):
        return built
    if inspect.iscoroutine(built):
        built.close()
        raise RegistrationError(
            f"{target} is an async def: make it a def that returns a Worker, or add @asynccontextmanager and yield one"
        )
    raise RegistrationError(f"{target} built a {type(built).__name__}, not a penstock.Worker")
