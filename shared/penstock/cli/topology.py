"""``penstock topology``: what must exist on the broker, compared, created and exported."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import orjson
import typer
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from penstock.applying import Applied, apply_all, differences
from penstock.errors import ConfigError, ConnectionLost
from penstock.management import Management
from penstock.settings import Settings
from penstock.topology.access import access
from penstock.topology.definitions import CURRENT, definitions, dumps
from penstock.topology.passwords import password_hash, read_passwords
from penstock.topology.plan import Difference, Effort
from penstock.topology.reading import read_spec
from penstock.urls import BrokerUrl

T = TypeVar("T")

_MARKS = {Effort.CREATABLE: "+", Effort.DANGEROUS: "!", Effort.INFORMATIONAL: "?"}

_EXAMPLES = """
\b
Examples:
  penstock topology plan                           what apply would do; exit code 6 when there is something
  penstock topology apply                          create what is missing, set policies
  penstock topology export --for 3.10 --output definitions.json
  penstock topology users --passwords-from /run/secrets/rabbitmq
"""

app = typer.Typer(
    help="Compare, create and export what must exist on the broker.",
    epilog=_EXAMPLES,
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
)

File = Annotated[
    Path | None,
    typer.Option("--file", metavar="FILE", help="The description (PENSTOCK_TOPOLOGY, else rabbitmq/topology.yaml)."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("plan")
def plan_command(file: File = None, as_json: AsJson = False) -> None:
    """Show what differs on the broker, in words.

    Exit code 6 when anything differs. + can be created by apply, ! cannot be changed in place or endangers jobs,
    ? is for you to know.
    """
    settings = Settings.load(topology=file)
    spec = read_spec(settings.topology)
    with _management(settings.broker_url) as management:
        found = _patiently(lambda: differences(management, spec), settings)
    if as_json:
        typer.echo(orjson.dumps([_plain(difference) for difference in found]).decode())
    else:
        _show(found)
        typer.echo(_summary(found, f"{settings.broker_url} is as {settings.topology} says"))
    if found:
        raise typer.Exit(6)


@app.command("apply")
def apply_command(file: File = None, as_json: AsJson = False) -> None:
    """Create what is missing and set policies. Changes nothing where something dangerous differs (exit code 5)."""
    settings = Settings.load(topology=file)
    spec = read_spec(settings.topology)
    url = settings.broker_url
    with _management(url) as management:
        applied = _patiently(lambda: asyncio.run(apply_all(url, management, spec)), settings)
    if applied.blind is not None:
        words = f"penstock: declared without looking: no policies set, no drift seen ({applied.blind})"
        typer.echo(words, err=True)
    typer.echo(_applied_json(applied) if as_json else _applied_words(applied, str(url)))


@app.command("export")
def export_command(
    file: File = None,
    version: Annotated[str, typer.Option("--for", metavar="VERSION", help="The broker's version.")] = CURRENT,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write there, not to the screen.")
    ] = None,
) -> None:
    """Write definitions.json for a broker.

    It is imported at the first boot; its users have no passwords yet.
    """
    text = dumps(definitions(read_spec(Settings.load(topology=file).topology), version))
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{output}: {error.strerror}") from error


@app.command("users")
def users_command(
    passwords_from: Annotated[
        Path, typer.Option("--passwords-from", metavar="DIR", help="A directory with a file for each user.")
    ],
    file: File = None,
) -> None:
    """Create users and set their passwords.

    They get their permissions, and the passwords that files named by user hold. Takes an administrator.
    """
    settings = Settings.load(topology=file)
    spec = read_spec(settings.topology)
    passwords = read_passwords(passwords_from, [user.name for user in spec.users])
    with _management(settings.broker_url) as management:
        _patiently(management.version, settings)
        for user in spec.users:
            if user.name in passwords:
                management.put_user(access(spec, user), password_hash(passwords[user.name]))
            typer.echo(
                f"{user.name}: {'set' if user.name in passwords else 'left alone, there is no file of that name'}"
            )


def _management(url: BrokerUrl) -> Management:
    return Management(url, os.environ.get("RABBITMQ_MANAGEMENT_URL"))


def _patiently(call: Callable[[], T], settings: Settings) -> T:
    """Call until the broker can be reached, at most for the connect timeout, with a line for each try."""
    attempts = Retrying(
        retry=retry_if_exception_type(ConnectionLost),
        wait=wait_random_exponential(multiplier=0.5, max=5),
        stop=stop_after_delay(settings.connect_timeout),
        before_sleep=_report,
        reraise=True,
    )
    return attempts(call)


def _report(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    typer.echo(f"penstock: try {state.attempt_number}: {error}; again in {state.upcoming_sleep:.1f} s", err=True)


def _show(found: Sequence[Difference]) -> None:
    for difference in found:
        typer.echo(f"{_MARKS[difference.effort]} {difference}")


def _summary(found: Sequence[Difference], nothing: str) -> str:
    if not found:
        return f"no difference: {nothing}"
    counts = ((effort, sum(difference.effort is effort for difference in found)) for effort in Effort)
    return f"{len(found)} differences: " + ", ".join(f"{count} {effort}" for effort, count in counts if count)


def _applied_words(applied: Applied, peer: str) -> str:
    done = [f"done: {difference.subject}" for difference in applied.done]
    left = [f"{_MARKS[difference.effort]} {difference}" for difference in applied.left]
    return "\n".join([*done, *left, f"{peer} is applied"])


def _applied_json(applied: Applied) -> str:
    return orjson.dumps(
        {
            "done": [_plain(difference) for difference in applied.done],
            "left": [_plain(difference) for difference in applied.left],
            "policies": applied.blind is None,
        }
    ).decode()


def _plain(difference: Difference) -> dict[str, str | None]:
    return {
        "subject": difference.subject,
        "difference": difference.words,
        "effort": str(difference.effort),
        "way": difference.way,
    }
