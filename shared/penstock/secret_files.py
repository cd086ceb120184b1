"""A variable that may hold a secret, or name a file that does: ``NAME`` or ``NAME_FILE``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from penstock.errors import ConfigError


def secret_from(environ: Mapping[str, str], name: str) -> str | None:
    """What the variable *name* holds, else the file that ``NAME_FILE`` names; None when neither is set.

    A variable that is empty is not set; space around is taken off. Raises ``ConfigError`` for a file that cannot be
    read or is empty, without its content.
    """
    if text := environ.get(name, "").strip():
        return text
    if path := environ.get(f"{name}_FILE", "").strip():
        return _read(path, f"{name}_FILE")
    return None


def _read(path: str, variable: str) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{variable} {path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{variable} {path}: cannot be read: it is not UTF-8 text") from error
    if not text:
        raise ConfigError(f"{variable} {path}: the file is empty")
    return text
