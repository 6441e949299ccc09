"""Telling somebody that a run has ended: a command of the user's, or a webhook. No receiver can make a run fail."""

from __future__ import annotations

import json
import math
import os
import shlex
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from gcpod.jobs.prices import Money, Price, Unknown
from gcpod.jobs.webhook import TIMEOUT_S, Webhook
from gcpod.spec import NotifySpec
from gcpod.status import JobState, Metrics

if TYPE_CHECKING:
    import requests

COMMAND_S: Final = 60.0
_TAIL_BYTES: Final = 1000
_DRAIN_S: Final = 1.0


@dataclass(frozen=True)
class EndedJob:
    """A job of a run that ended; ``console`` is the address of its page."""

    kind: str
    name: str
    state: JobState
    console: str


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        run_id: names the run.
        state: of its jobs in short, such as SUCCEEDED or FAILED.
        error: why it failed; "" where it did not.
        metrics: of the checkpoint that speaks for it; None: none was evaluated.
        started, ended: RFC 3339 in UTC; "" when unknown.
        cost: of all its jobs; None: nobody reckoned it.
    """

    run_id: str
    state: str
    error: str = ""
    jobs: tuple[EndedJob, ...] = ()
    metrics: Metrics | None = None
    started: str = ""
    ended: str = ""
    cost: Price | None = None

    @property
    def text(self) -> str:
        """All of it that fits one line of a chat."""
        parts = [f"gcpod: run {self.run_id} {self.state}"]
        if self.error:
            parts.append(" ".join(self.error.split()))
        if self.metrics is not None:
            parts.append(f"AP {self.metrics.ap:.3f} at step {self.metrics.step}")
        if self.cost is not None:
            parts.append(f"cost {self.cost}")
        return ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, which has no word for numbers that are none: they are None."""
        jobs = [{**asdict(job), "state": job.state.short} for job in self.jobs]
        return {
            "run": self.run_id, "state": self.state, "error": self.error or None, "jobs": jobs,
            "metrics": None if self.metrics is None else _finite(asdict(self.metrics)),
            "started": self.started or None, "ended": self.ended or None,
            "cost": f"{self.cost.amount:f}" if isinstance(self.cost, Money) else None,
            "currency": self.cost.currency if isinstance(self.cost, Money) else None,
            "cost_unknown": self.cost.why if isinstance(self.cost, Unknown) else None,
            "text": self.text,
        }


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _finite(value) if isinstance(value, Mapping) else
        None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, negative for a signal's, None where the time was over; its last output."""

    code: int | None
    tail: str


RunCommand = Callable[[Sequence[str], bytes, Mapping[str, str]], Ended]
"""Runs a program with arguments, standard input and environment; raises OSError where it cannot be started."""


def notify(
    outcome: Outcome, spec: NotifySpec, *, run: RunCommand | None = None, http: requests.Session | None = None,
    sleep: Callable[[float], None] = time.sleep, timeout_s: float = TIMEOUT_S,
) -> list[str]:
    """Tells everybody that a spec names.

    Args:
        outcome: what is told.
        spec: a command and a webhook, either or both.
        run: runs the command; `run_command` unless given.
        http: posts to the webhook; a session of its own unless given.
        sleep: seconds between two tries.
        timeout_s: for a connection, and for each sign of life on it.

    Returns:
        What went wrong, a sentence each. Of a webhook's address, which is a secret, none has more than the host; of a
        command none has more than the program.
    """
    problems = []
    if spec.command:
        problems += _call(outcome, spec.command, run or run_command)
    if spec.webhook:
        import requests

        with nullcontext(http) if http is not None else requests.Session() as session:
            problems += Webhook(session, sleep, timeout_s).tell(outcome.to_dict(), spec.webhook)
    return problems


def _call(outcome: Outcome, command: str, run: RunCommand) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as e:
        return [f"notify.command cannot be read ({str(e).lower()}): quote it as for a shell"]
    if not words:
        return ["notify.command is empty: name a program, or leave the key out"]
    # As VARIABLE=value, which is for a shell, it may hold a secret.
    told = f"the command {words[0].partition('=')[0]} of notify.command"
    env = {**os.environ, "GCPOD_RUN": outcome.run_id, "GCPOD_STATE": outcome.state}
    try:
        ended = run(words, json.dumps(outcome.to_dict()).encode(), env)
    except (OSError, ValueError) as e:
        return [f"{told} cannot be run: {getattr(e, 'strerror', None) or e}"]
    if ended.code == 0:
        return []
    how = "did not end in time and was stopped" if ended.code is None else f"ended with {ended.code}"
    return [f"{told} {how}{': ' if ended.tail else ''}{ended.tail}"]


def run_command(words: Sequence[str], given: bytes, env: Mapping[str, str], limit_s: float = COMMAND_S) -> Ended:
    """Runs a program without a shell; when it ends, or its time is over, so does all that it started in its group.

    Raises:
        OSError: it cannot be started.
    """
    process = subprocess.Popen(
        list(words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=dict(env),
        start_new_session=True,
    )
    tail: deque[int] = deque(maxlen=_TAIL_BYTES)
    # Neither a program that reads nothing nor one that writes without end may hold this one up.
    threads = [
        threading.Thread(target=_feed, args=(process, given), daemon=True),
        threading.Thread(target=_drain, args=(process, tail), daemon=True),
    ]
    for thread in threads:
        thread.start()
    code: int | None = None
    try:
        with suppress(subprocess.TimeoutExpired):
            code = process.wait(limit_s)
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for thread in threads:
        thread.join(_DRAIN_S)
    text = bytes(tuple(tail)).decode("utf-8", "replace")
    return Ended(code, " ".join("".join(c if c.isprintable() else " " for c in text).split()))


def _feed(process: subprocess.Popen[bytes], given: bytes) -> None:
    assert process.stdin is not None
    with suppress(OSError), process.stdin as stdin:
        stdin.write(given)


def _drain(process: subprocess.Popen[bytes], tail: deque[int]) -> None:
    assert process.stdout is not None
    with process.stdout as stdout:
        while block := os.read(stdout.fileno(), 1 << 16):
            tail.extend(block[-_TAIL_BYTES:])
