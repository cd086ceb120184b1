"""Runs a program on files it did not open: tied to this process, bounded in what it writes and says, stopped with its
caller."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from penstock import ConfigError
from services.media import tethered
from services.media.ports import Failed, Refused

#: What a program says is kept up to this many bytes from its beginning, and as many from its end.
_KEPT = 8 * 1024

#: Characters of a reason, and lines it is made of.
_TOLD, _LINES = 300, 3

#: Who said it, and where in memory: ``[hls @ 0x55d0c2]``. Another address each time would be another reason.
_SPEAKER = re.compile(r"\[([^\]]*) @ 0x[0-9a-f]+\]")
_REPEATED = re.compile(r"Last message repeated \d+ times")
#: The names of descriptors, for programs that take files by name: at the beginning of a line it goes without saying.
_FILE = re.compile(r"(file:)?/proc/self/fd/\d+")
_OF_THE_FILE = re.compile(rf"^{_FILE.pattern}: ")

#: Not the source's fault, and perhaps otherwise the next time.
_PASSING = re.compile(
    r"no space left|disk quota exceeded|read-only file system|permission denied|cannot allocate memory|malloc of size"
    r"|out of memory|resource temporarily unavailable|too many open files|stale file handle"
    r"|unknown (encoder|decoder)|unrecognized option|option not found|no such filter",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended, and what it said on standard error."""

    code: int
    words: str


def path_of(descriptor: int) -> str:
    """The name by which a program opens a file that it was handed by its *descriptor*."""
    return f"file:/proc/self/fd/{descriptor}"


def found(program: str, setting: str, package: str) -> str:
    """The path of *program*. Raises ``ConfigError`` when it is not there."""
    path = shutil.which(program)
    if path is None:
        cure = f"install {package} (on Debian: apt-get install {package}), or name another in {setting}"
        raise ConfigError(f"{program} is not there: {cure}")
    return path


async def run(command: Sequence[str], files: Sequence[int], max_bytes: int, hear: Callable[[bytes], None]) -> Ended:
    """Run *command*, which inherits *files*, and give each line of its standard output to *hear*.

    When *hear* raises or the caller is cancelled, the program gets SIGTERM and is waited for; whoever waits no longer
    kills the process group, of which it is. No file it writes gets larger than *max_bytes*.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-IS", tethered.__file__, str(os.getpid()), str(max_bytes), *command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=files,
        env=_environment(),
    )
    assert process.stdout is not None, "asked for above"
    assert process.stderr is not None, "asked for above"
    words = asyncio.create_task(_both_ends(process.stderr))
    try:
        async for line in process.stdout:
            hear(line)
        return Ended(await process.wait(), await words)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


def problem(ended: Ended) -> Refused | Failed:
    """What is wrong with a program that did not end well, in its own words."""
    if ended.code == -signal.SIGXFSZ:
        return Refused("what is made of it would be larger than MEDIA_MAX_BYTES")
    if ended.code < 0:
        return Failed(f"killed by {signal.Signals(-ended.code).name}")
    words = reason(ended.words) or f"exit code {ended.code}, without a word"
    passing = ended.code == tethered.NOT_STARTED or _PASSING.search(ended.words)
    return Failed(words) if passing else Refused(words)


def reason(words: str) -> str:
    """*words* of a program in one line: what it said first, and last, without what differs from run to run."""
    lines = list(dict.fromkeys(filter(None, (_plain(line) for line in words.splitlines()))))
    told = lines if len(lines) <= _LINES else [*lines[: _LINES - 1], lines[-1]]
    return "; ".join(told)[:_TOLD]


def _plain(line: str) -> str:
    without = _FILE.sub("the file", _OF_THE_FILE.sub("", _SPEAKER.sub(r"\1:", _REPEATED.sub("", line))))
    return " ".join("".join(letter if letter.isprintable() else " " for letter in without).split())


async def _both_ends(stream: asyncio.StreamReader) -> str:
    """The beginning and the end of what comes from *stream*, however much that is."""
    begin, end = b"", b""
    while part := await stream.read(4096):
        room = _KEPT - len(begin)
        begin, end = begin + part[:room], (end + part[room:])[-_KEPT:]
    return (begin + (b"\n" if end else b"") + end).decode("utf-8", "replace")


def _environment() -> dict[str, str]:
    """What a program is told of ours: no password is near something that reads foreign files."""
    passed = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    # Each of glibc's arenas would take 64 MiB of what the memory's bound counts.
    return {**passed, "LC_ALL": "C", "MALLOC_ARENA_MAX": "2"}
