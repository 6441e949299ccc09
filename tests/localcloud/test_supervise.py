"""The supervisor between server and job: exit codes pass through, and a closed pipe ends everything below it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gcpod.localcloud import supervise
from tests.localcloud.test_job_runs import alive
from tests.waiting import until

SUPERVISOR = [sys.executable, str(Path(supervise.__file__))]


def start(script: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*SUPERVISOR, "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("script", "code"), [
    ("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -9 $$", 137),
])
def test_exit_codes_pass_through(script: str, code: int) -> None:
    process = start(script)
    assert process.wait(timeout=20) == code
    process.communicate(timeout=20)


def test_a_closed_pipe_ends_the_job_and_its_children() -> None:
    process = start("sleep 100 & echo $!; echo $$; wait")
    assert process.stdout is not None
    child, job = int(process.stdout.readline()), int(process.stdout.readline())
    assert alive(child)
    process.communicate(timeout=20)
    assert process.returncode == 143
    until(lambda: not alive(child) and not alive(job))


def test_what_ignores_sigterm_is_killed_after_its_grace() -> None:
    code = "import sys; from gcpod.localcloud import supervise as s; s.GRACE_S = 0.2; sys.exit(s.main(sys.argv[1:]))"
    script = "trap '' TERM; echo ready; while true; do sleep 0.1; done"
    process = subprocess.Popen([sys.executable, "-c", code, "sh", "-c", script], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.communicate(timeout=20)
    assert process.returncode == 137


def test_what_a_job_leaves_behind_ends_with_it() -> None:
    process = start("sleep 100 >/dev/null 2>&1 & echo $!")
    process.wait(timeout=20)
    out, _ = process.communicate(timeout=20)
    until(lambda: not alive(int(out)))
    assert not alive(int(out))
