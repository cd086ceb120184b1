"""What the commands around a store share: which store, reached with patience, and facts in columns."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Annotated, Any, TypeVar  # coroutines of any kind

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_delay, wait_random_exponential

from penstock.errors import StoreUnavailable
from penstock.printable import shortened
from penstock.settings import LogLevel, Settings

T = TypeVar("T")

StoreUrlOption = Annotated[
    str | None,
    typer.Option("--store-url", metavar="URL", help="The store (PENSTOCK_STORE_URL, else sqlite:///penstock.db)."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_MAX_LINE = 240


def on_store(store_url: str | None, work: Callable[[Settings], Coroutine[Any, Any, T]]) -> T:
    """Run *work* with the settings, in which *store_url* counts when it is given."""
    settings = Settings.load(store_url=store_url)
    from penstock import logs  # others who show columns need none

    logs.setup(settings, default=LogLevel.WARNING)
    return asyncio.run(work(settings))


async def patiently(step: Callable[[], Awaitable[T]], settings: Settings) -> T:
    """Do *step* once the store can be reached, tried for the connect timeout with a line for each try."""
    attempts = AsyncRetrying(
        retry=retry_if_exception_type(StoreUnavailable),
        wait=wait_random_exponential(multiplier=0.2, max=5),
        stop=stop_after_delay(settings.connect_timeout),
        before_sleep=_report,
        reraise=True,
    )
    done: T = await attempts(step)
    return done


def show_columns(names: Sequence[str], rows: Sequence[Sequence[str]], *, whole: Sequence[str] = ()) -> None:
    """Print *rows*: a table for a terminal (columns in *whole* never broken), else a line each, cut to a readable
    length."""
    console = Console(soft_wrap=False)
    if not console.is_terminal:
        for cells in rows:
            typer.echo(shortened("  ".join(cells).rstrip(), _MAX_LINE))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold", no_wrap=name in whole)
    for cells in rows:
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)


def age(milliseconds: int | None, now_ms: int) -> str:
    """How long ago that was, in the largest unit that gives a whole; ``-`` for never."""
    if milliseconds is None:
        return "-"
    seconds = max(0, now_ms - milliseconds) // 1000
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _report(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    typer.echo(f"penstock: try {state.attempt_number}: {error}; again in {state.upcoming_sleep:.1f} s", err=True)
