"""Users' passwords, read from a directory of secret files and hashed as RabbitMQ keeps them."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Collection, Mapping
from hashlib import sha256
from pathlib import Path

from penstock.errors import ConfigError


def password_hash(password: str, salt: bytes | None = None) -> str:
    """Hash *password* as ``rabbit_password_hashing_sha256``, with a random *salt* of 4 bytes unless given.

    https://www.rabbitmq.com/docs/passwords#this-is-the-algorithm
    """
    salt = os.urandom(4) if salt is None else salt
    return b64encode(salt + sha256(salt + password.encode()).digest()).decode()


def read_passwords(directory: Path, users: Collection[str]) -> Mapping[str, str]:
    """Read the files of *directory* that are named by user: user → password, without the line's end.

    A user without a file is left out. Raises ``ConfigError`` with every problem: a file that is no user's, an empty or
    unreadable one, a missing directory. Hidden files are passed over (mounted secrets come with some).
    """
    try:
        files = sorted(path for path in directory.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise ConfigError(f"{directory}: {error.strerror}") from error
    passwords: dict[str, str] = {}
    problems = []
    for path in files:
        try:
            passwords[path.name] = _read(path, users)
        except ValueError as error:  # what is not UTF-8 is one, too
            problems.append(f"{path}: {error}")
        except OSError as error:
            problems.append(f"{path}: {error.strerror}")
    if problems:
        raise ConfigError(*problems)
    return passwords


def _read(path: Path, users: Collection[str]) -> str:
    if path.name not in users:
        raise ValueError(f"there is no user {path.name!r} in topology.yaml; there are {', '.join(users)}")
    password = path.read_text(encoding="utf-8").rstrip("\r\n")
    if not password:
        raise ValueError("the file is empty")
    return password
