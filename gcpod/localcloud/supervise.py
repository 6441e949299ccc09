"""A process between the local cloud and a job: when its standard input closes, the whole job goes.

The local cloud holds the other end of that pipe, so a job never outlives it, however it dies. Each byte on the pipe is
the number of a signal for the job's process group.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

GRACE_S = 10.0
"""Between SIGTERM and SIGKILL, as a container is given before it is killed."""


def main(command: list[str]) -> int:
    """Runs the command in a process group of its own; returns its exit code, 128 + N for signal N."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_end_with_input, args=(child,), daemon=True).start()
    code = child.wait()
    _signal(child, signal.SIGKILL)
    return 128 - code if code < 0 else code


def _end_with_input(child: subprocess.Popen[bytes]) -> None:
    # Not through sys.stdin: its lock, held here while the main thread exits, would abort the interpreter.
    while numbers := os.read(0, 1024):
        for number in numbers:
            _signal(child, number)
    _signal(child, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(GRACE_S)
    _signal(child, signal.SIGKILL)


def _signal(child: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(child.pid, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
