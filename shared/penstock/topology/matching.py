"""Whether a routing key fits a topic binding, by RabbitMQ's rules."""

from __future__ import annotations

from collections.abc import Sequence


def matches(pattern: str, key: str) -> bool:
    """Say whether *key* fits *pattern*: ``*`` stands for exactly one word, ``#`` for any number of words, also none.

    Words are separated by dots and may be empty (``a..b`` has three), only the empty key has none. In a key, ``*`` and
    ``#`` are words like any other.
    """
    words = _words(key)
    eaten = {0}  # how many words of the key the pattern may have used up so far
    for part in _words(pattern):
        if not eaten:
            return False
        eaten = _step(part, words, eaten)
    return len(words) in eaten


def _step(part: str, words: Sequence[str], eaten: set[int]) -> set[int]:
    if part == "#":
        return set(range(min(eaten), len(words) + 1))
    return {n + 1 for n in eaten if n < len(words) and part in ("*", words[n])}


def _words(text: str) -> Sequence[str]:
    return text.split(".") if text else ()
