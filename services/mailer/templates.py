"""Mail texts from Jinja2 templates: ``NAME.txt``, its first line the subject, and ``NAME.html`` if there is one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError, TemplateNotFound, select_autoescape
from pydantic import JsonValue

FOLDER = Path(__file__).with_name("templates")


class TemplateProblem(Exception):
    """A mail cannot be written: there is no such template, or it needs a value that was not given."""


@dataclass(frozen=True, slots=True)
class Text:
    """The words of one mail. *subject* is a single line without control characters, whatever the values held."""

    subject: str
    plain: str
    html: str | None = None


class Templates:
    """The templates in *folder*, compiled once. HTML is escaped; a value that is missing is an error, not a blank."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._jinja = Environment(
            loader=FileSystemLoader(folder),
            autoescape=select_autoescape(("html",)),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def render(self, name: str, values: Mapping[str, JsonValue]) -> Text:
        """Write the mail *name* with *values*. Raises ``TemplateProblem``."""
        try:
            subject, _, plain = self._jinja.get_template(f"{name}.txt").render(values).partition("\n")
            return Text(_one_line(subject), plain.lstrip("\n"), self._html(name, values))
        except TemplateNotFound as error:
            raise TemplateProblem(f"there is no mail template {name!r}") from error
        except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
            raise TemplateProblem(f"mail template {name!r} cannot be filled: {error}") from error

    def _html(self, name: str, values: Mapping[str, JsonValue]) -> str | None:
        try:
            template = self._jinja.get_template(f"{name}.html")
        except TemplateNotFound:
            return None
        return template.render(values)


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
