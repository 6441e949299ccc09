"""The replicas of a job as processes: they start together, and the primary one, or a failure, ends them together."""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Callable, Mapping

from gcpod.localcloud.pools import PRIMARY
from gcpod.localcloud.process import Command, Process

Say = Callable[[str, str, str], None]
"""Gets a task, a severity and a line, from threads of its own."""


class Replicas:
    """The processes of one start of a job.

    Args:
        commands: what to start, by task; one of them is the primary replica's.
        say: told every line that they write.
    """

    def __init__(self, commands: Mapping[str, Command], say: Say) -> None:
        self._commands, self._say = dict(commands), say
        self._lock = threading.Lock()
        self._ended: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
        self._processes: dict[str, Process] = {}
        self._again: set[str] = set()
        self._ending = False
        try:
            for task in self._commands:
                self._start(task)
        except BaseException:
            self.end()
            self._drain()
            raise

    def wait(self) -> tuple[str, int]:
        """The task and the exit code that decide the job, once every process ended and all that they wrote was said.

        That is the primary replica's end, or the first of another with a code that is not 0.
        """
        decisive: tuple[str, int] | None = None
        while decisive is None:
            task, code = self._ended.get()
            if self._revived(task):
                continue
            if task == PRIMARY or code != 0:
                decisive = task, code
        self.end()
        self._drain()
        return decisive

    def end(self) -> None:
        """SIGTERM for all, and SIGKILL after their grace."""
        for process in self._stopping():
            process.end()

    def kill(self) -> None:
        """SIGKILL for all, as when their machines are gone."""
        for process in self._stopping():
            process.signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        """A signal for the process group of each."""
        with self._lock:
            processes = list(self._processes.values())
        for process in processes:
            process.signal(number)

    def replace(self, task: str) -> bool:
        """Takes the machine of one replica away and starts that one anew; False where all are ending."""
        with self._lock:
            process = self._processes.get(task)
            if self._ending or process is None:
                return False
            self._again.add(task)
        process.signal(signal.SIGKILL)
        return True

    def _stopping(self) -> list[Process]:
        with self._lock:
            self._ending = True
            return list(self._processes.values())

    def _start(self, task: str) -> None:
        process = Process(self._commands[task], lambda severity, line: self._say(task, severity, line))
        self._processes[task] = process
        threading.Thread(target=self._watch, args=(task, process), name=f"replica-{task}").start()

    def _watch(self, task: str, process: Process) -> None:
        self._ended.put((task, process.wait()))

    def _revived(self, task: str) -> bool:
        """Whether the replica ended because its machine went, and runs again."""
        with self._lock:
            del self._processes[task]
            lost = task in self._again
            self._again.discard(task)
            if lost and not self._ending:
                self._start(task)
                return True
            return False

    def _drain(self) -> None:
        with self._lock:
            left = set(self._processes)
        while left:
            task, _ = self._ended.get()
            left.discard(task)
        with self._lock:
            self._processes.clear()
