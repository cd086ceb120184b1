"""A program of its own: become the command that is given, but end with the parent and write no file without bound.

``python -IS tethered.py PARENT MAX_BYTES COMMAND...``. Code that runs between fork and exec of a process with threads
may hang; a process that becomes the command cannot. What bounds the parent's memory bounds the command's, too.
"""

import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1

#: The exit code when there is no command to become; shells say the same.
NOT_STARTED = 127

#: How much the command stands back for others, such as the worker that has to answer its broker.
_NICE = 5


def main() -> None:
    """See above. Never returns."""
    parent, max_bytes, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it ended before this one was tied to it
        os._exit(NOT_STARTED)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(max_bytes), int(max_bytes)))
    except (OSError, ValueError, OverflowError) as error:
        _give_up(f"no files of {max_bytes} bytes can be allowed: {error}")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it, and the command would inherit that
    os.nice(_NICE)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        _give_up(f"{command[0]}: {error.strerror}")


def _give_up(words: str) -> None:
    """Say why there is no command to become. Never returns."""
    sys.stderr.write(f"{words}\n")
    os._exit(NOT_STARTED)


if __name__ == "__main__":
    main()
