"""A process and the parent that must not leave it behind, whatever ends the parent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Mapping, Sequence

#: Names, in a child's environment, the file descriptor of its end of the leash.
VARIABLE = "PENSTOCK_PARENT_FD"

#: Seconds a child that lost its parent may take to drain before it is ended.
PATIENCE = 60.0


class Leash:
    """A pair of sockets: the children share one end, and read end-of-file when the parent is gone, by SIGKILL too."""

    def __init__(self) -> None:
        self._own, self._theirs = socket.socketpair()
        self._own.setblocking(False)

    async def start(
        self, command: Sequence[str], variables: Mapping[str, str] | None = None
    ) -> asyncio.subprocess.Process:
        """Start a child on the leash, in a process group of its own: Ctrl-C reaches the parent alone.

        *variables*: what its environment says otherwise than ours.
        """
        end = self._theirs.fileno()
        environment = {**os.environ, **(variables or {}), VARIABLE: str(end)}
        return await asyncio.create_subprocess_exec(*command, env=environment, pass_fds=(end,), process_group=0)

    def on_word(self, heard: Callable[[], object]) -> None:
        """Call *heard* on the running loop when a child has said ``ready``."""
        asyncio.get_running_loop().add_reader(self._own, self._hear, heard)

    def close(self) -> None:
        """Let go. Idempotent."""
        if self._own.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._own)
        self._own.close()
        self._theirs.close()

    def _hear(self, heard: Callable[[], object]) -> None:
        with contextlib.suppress(OSError):
            if self._own.recv(4096):
                heard()


class Tie:
    """A child's end of the leash; without a parent that holds one, it does nothing."""

    def __init__(self) -> None:
        text = os.environ.pop(VARIABLE, "")
        self._socket = _socket(int(text)) if text.isdecimal() else None

    def watch(self, gone: Callable[[], object]) -> None:
        """Call *gone*, in a thread, when the parent is gone; end the process if that has not ended it in a minute."""
        if self._socket is not None:
            threading.Thread(target=self._wait, args=(self._socket, gone), name="parent", daemon=True).start()

    def ready(self) -> None:
        """Tell the parent that this child does its work. Never raises."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.send(b"r")

    @staticmethod
    def _wait(end: socket.socket, gone: Callable[[], object]) -> None:
        with contextlib.suppress(ConnectionError):
            end.recv(1)  # the parent never writes
        gone()
        threading.Event().wait(PATIENCE)
        os._exit(1)


async def ended(child: asyncio.subprocess.Process, within: float) -> bool:
    """Tell *child* to stop, wait, and kill it when that takes longer than *within* seconds; whether it stopped."""
    tell(child, signal.SIGTERM)
    try:
        await asyncio.wait_for(child.wait(), within)
    except TimeoutError:
        tell(child, signal.SIGKILL)
        await child.wait()
        return False
    return True


def tell(child: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Send a signal to a child that may have ended meanwhile."""
    with contextlib.suppress(ProcessLookupError):
        child.send_signal(number)


def _socket(number: int) -> socket.socket | None:
    try:
        end = socket.socket(fileno=number)
    except OSError:  # no socket of ours: the variable was set by something else
        return None
    end.set_inheritable(False)  # the children of this process have another parent
    return end
