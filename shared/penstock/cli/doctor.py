"""``penstock doctor``: what is wrong with this machine's broker, topology, workers, store, and the cure."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.text import Text

from penstock import logs
from penstock.cli.storing import AsJson, StoreUrlOption
from penstock.cli.topology import File
from penstock.cli.values import span
from penstock.doctor.examination import PATIENCE, examine
from penstock.doctor.findings import Finding, State, exit_code, failed
from penstock.errors import ConfigError
from penstock.printable import printable
from penstock.settings import LogLevel, Settings

_WORDS = {State.OK: ("OK", "green"), State.WRONG: ("WRONG", "bold red"), State.UNSEEN: ("-", "dim")}

_EXAMPLES = """
\b
Examples:
  penstock doctor
  penstock doctor services.mailer.app:build        its handlers' deadlines and its store as well
  penstock doctor --json

\b
Asks once and waits for nothing. "-" is what could not be looked at, and why.
Exit codes: 0 nothing is wrong, 6 something is; when the doctor could not look: 3 broker, management API or store away,
4 refused (login, virtual host, permission), 5 settings that cannot be read.
"""

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(epilog=_EXAMPLES)
def doctor(
    targets: Annotated[
        list[str] | None, typer.Argument(metavar="[MODULE:FACTORY]...", help="Workers to check.", show_default=False)
    ] = None,
    file: File = None,
    store_url: StoreUrlOption = None,
    timeout: Annotated[
        timedelta | None,
        typer.Option(metavar="DURATION", parser=span, help="How long each may take to answer (2s)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check everything that Penstock needs here, one line each: OK, or what is wrong and the cure."""
    findings = _findings(targets or [], file, store_url, timeout or PATIENCE)
    if as_json:
        typer.echo(orjson.dumps([_plain(finding) for finding in findings]).decode())
    else:
        _show(findings)
    if code := exit_code(findings):
        raise typer.Exit(code)


def _findings(targets: Sequence[str], file: Path | None, store_url: str | None, timeout: timedelta) -> list[Finding]:
    try:
        settings = Settings.load(topology=file, store_url=store_url)
    except ConfigError as error:
        return failed("settings", error)
    logs.setup(settings, default=LogLevel.ERROR)
    return asyncio.run(examine(settings, targets, patience=timeout))


def _show(findings: Sequence[Finding]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        word, style = _WORDS[finding.state]
        cure = f"; {finding.cure}" if finding.cure else ""
        line = Text(f"{word:<6}", style=style)
        console.print(line + Text(f"{finding.check:<{width}}  {printable(finding.words + cure)}", style=""))
    wrong = sum(finding.state is State.WRONG for finding in findings)
    console.print(f"{wrong} of {len(findings)} checks found something" if wrong else "nothing is wrong")


def _plain(finding: Finding) -> dict[str, str | None]:
    return {"check": finding.check, "state": str(finding.state), "found": finding.words, "cure": finding.cure}
