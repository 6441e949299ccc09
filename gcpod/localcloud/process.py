"""One run of a job: the environment Vertex AI gives it, its command, its output line by line, its exit code."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from gcpod.localcloud import supervise
from gcpod.runtimes import LAUNCHER

ENTRYPOINT = ("python", "-m", "gcpod_launcher")
"""What a trainer image starts when the request names no command (see gcpod/runtimes/recipe.py)."""


@dataclass(frozen=True)
class Command:
    """What to start: ``argv``, the whole environment, and the folder to start it in."""

    argv: tuple[str, ...]
    environment: dict[str, str]
    folder: Path


def job_variables(job_id: str, project_number: str, location: str, job_spec: Mapping[str, Any]) -> dict[str, str]:
    """The variables Vertex AI sets in every replica
    (https://cloud.google.com/vertex-ai/docs/training/code-requirements#environment-variables)."""
    variables = {"CLOUD_ML_PROJECT_ID": project_number, "CLOUD_ML_JOB_ID": job_id, "CLOUD_ML_REGION": location}
    base = job_spec.get("baseOutputDirectory", {}).get("outputUriPrefix", "").rstrip("/")
    if base:
        variables |= {
            "AIP_MODEL_DIR": f"{base}/model/",
            "AIP_CHECKPOINT_DIR": f"{base}/checkpoints/",
            "AIP_TENSORBOARD_LOG_DIR": f"{base}/logs/",
        }
    return variables


def base_environment(python: Path, folder: Path) -> dict[str, str]:
    """An environment that owes nothing to the user's own: no credentials, no proxies, no Python settings."""
    return {
        "PATH": f"{python.parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(folder),
        "TMPDIR": str(folder / "tmp"),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(LAUNCHER),
    }


class Process:
    """A job's process under its supervisor."""

    def __init__(self, command: Command, say: Callable[[str, str], None]) -> None:
        """Starts it; ``say`` gets severity and line from two threads until the process ended."""
        (command.folder / "tmp").mkdir(parents=True, exist_ok=True)
        self._popen = subprocess.Popen(
            [sys.executable, str(Path(supervise.__file__)), *command.argv], cwd=command.folder,
            env=command.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,  # so that Ctrl-C at the server's terminal does not kill the supervisor alone
        )
        self._pipe = threading.Lock()
        # Vertex AI gives standard output the severity INFO and standard error ERROR.
        streams = (("INFO", self._popen.stdout), ("ERROR", self._popen.stderr))
        self._readers = [threading.Thread(target=_read, args=(stream, severity, say)) for severity, stream in streams]
        for reader in self._readers:
            reader.start()

    def end(self) -> None:
        """Has the supervisor end the job: SIGTERM, and SIGKILL after its grace."""
        with self._pipe:
            if self._popen.stdin is not None and not self._popen.stdin.closed:
                self._popen.stdin.close()

    def signal(self, number: int) -> None:
        """Has the supervisor send a signal to the job's whole process group; harmless once it ended."""
        with self._pipe:
            if self._popen.stdin is not None and not self._popen.stdin.closed:
                with contextlib.suppress(BrokenPipeError):
                    os.write(self._popen.stdin.fileno(), bytes([number]))

    def wait(self) -> int:
        """The exit code, once everything the job wrote has been said."""
        code = self._popen.wait()
        for reader in self._readers:
            reader.join()
        self.end()
        for stream in (self._popen.stdout, self._popen.stderr):
            if stream is not None:
                stream.close()
        return code


def _read(stream: IO[bytes], severity: str, say: Callable[[str, str], None]) -> None:
    for line in stream:
        text = line.decode("utf-8", "replace").rstrip()
        if text:
            say(severity, text)
