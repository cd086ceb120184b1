"""Puts the frames of one channel's content together: method, header, body."""

from __future__ import annotations

from abc import ABC, abstractmethod

from penstock.brokers.frames import BODY, HEADER, METHOD
from penstock.brokers.properties import body_size


class ContentSink(ABC):
    """Base of what takes content off a channel; a ``Sink``."""

    def __init__(self) -> None:
        self._method = b""
        self._header = b""
        self._missing = 0
        self._parts: list[bytes] = []

    def take(self, kind: int, data: bytes, start: int, stop: int) -> bool:
        """Take a frame of content; leave every method to pika that ``_on_method`` does not take."""
        if kind == METHOD:
            return self._on_method(data[start:stop])
        if kind == HEADER:
            self._header = data[start:stop]
            self._missing = body_size(self._header)
        elif kind == BODY:
            self._parts.append(data[start:stop])
            self._missing -= stop - start
        else:
            return False
        if self._missing <= 0:
            self._finish()
        return True

    def _finish(self) -> None:
        parts = self._parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self._on_content(self._method, self._header, body)

    @abstractmethod
    def _on_method(self, payload: bytes) -> bool:
        """Take the method, or return False. One that content follows must be kept in ``_method``."""

    @abstractmethod
    def _on_content(self, method: bytes, header: bytes, body: bytes) -> None:
        """Take a whole content: the payloads of its method and header, and its body."""
