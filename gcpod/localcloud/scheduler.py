"""Runs custom jobs as Vertex AI does: the image's runtime, the packages, the environment, the process, its end."""

from __future__ import annotations

import shutil
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gcpod.errors import GcpodError, LocalCloudError
from gcpod.localcloud.jobdb import TERMINAL, JobDatabase, JobRecord
from gcpod.localcloud.process import ENTRYPOINT, Command, Process, base_environment, job_variables
from gcpod.localcloud.runtime import ensure_environment
from gcpod.runtimes import Runtime, runtime_of_image
from gcpod.uris import GcsUri, inside

EnvironmentOf = Callable[[Runtime, str, Path, Callable[[str], None]], Path]
LOCATION = "local"
TASK = "workerpool0-0"
MAX_STARTS = 3
"""How often a job is started again after the server died under it, as Vertex AI retries internal errors."""
MAX_RUNNING = 4
_INTERNAL, _FAILED, _DEADLINE = 13, 3, 4
DEFAULT_TIMEOUT_S = 7 * 24 * 3600.0
"""https://cloud.google.com/vertex-ai/docs/reference/rest/v1/CustomJobSpec#scheduling"""


def project_number(project: str) -> str:
    """Twelve digits that stand for a project id; a number stands for itself."""
    if project.isdigit():
        return project
    return str(100_000_000_000 + int.from_bytes(project.encode(), "big") % 899_999_999_989)


def timeout_of(job_spec: Mapping[str, Any]) -> float:
    """How long a job may run, in seconds: its scheduling.timeout, such as ``3600s``."""
    text = str(job_spec.get("scheduling", {}).get("timeout", ""))
    return float(text.removesuffix("s")) if text else DEFAULT_TIMEOUT_S


class Scheduler:
    """Starts and ends the processes of jobs.

    Args:
        database: jobs and entries.
        root: the local cloud's folder; jobs work below ``root/jobs``.
        cache: the user's cache directory, for runtimes.
        url: base URL of the local cloud.
        variables: what a job needs so that its gs:// paths lead here.
        environment_of: makes a runtime's interpreter; given by tests that need no TensorFlow.
        location: the region it stands for.
    """

    def __init__(
        self, database: JobDatabase, root: Path, cache: Path, url: str, variables: Mapping[str, str],
        environment_of: EnvironmentOf = ensure_environment, location: str = LOCATION,
    ) -> None:
        self.database, self.root, self.cache, self.url, self.location = database, root, cache, url, location
        self.variables, self.environment_of = dict(variables), environment_of
        self._slots = threading.BoundedSemaphore(MAX_RUNNING)
        self._lock, self._ending = threading.Lock(), threading.Lock()
        self._processes: dict[str, Process] = {}
        self._queued: set[str] = set()
        self._threads: dict[str, threading.Thread] = {}
        self._stopping = False

    def resume(self) -> None:
        """Takes up the jobs that a server which is gone left unfinished."""
        for job in reversed(self.database.all()):
            if job.state == "CANCELLING":
                self._end(job.id, "CANCELLED")
            elif job.state not in TERMINAL and job.id not in self._threads:
                self.start(job.id)

    def start(self, job_id: str) -> None:
        thread = threading.Thread(target=self._run, args=(job_id,), name=f"job-{job_id}")
        self._queued.add(job_id)
        self._threads[job_id] = thread
        thread.start()

    def cancel(self, job_id: str) -> None:
        """Ends a job that has not ended yet; it passes through CANCELLING."""
        if self.database.update(job_id, state="CANCELLING") is None:
            return
        with self._lock:
            queued, process = job_id in self._queued, self._processes.get(job_id)
            self._queued.discard(job_id)
        if queued:
            self._end(job_id, "CANCELLED")
        elif process is not None:
            process.end()

    def stop(self) -> None:
        """Ends every process and leaves the jobs as they are, to be taken up by the next server."""
        self._stopping = True
        with self._lock:
            processes = list(self._processes.values())
        for process in processes:
            process.end()
        for thread in list(self._threads.values()):
            thread.join()

    @property
    def active(self) -> int:
        """Jobs that have not ended."""
        return sum(job.state not in TERMINAL for job in self.database.all())

    def _run(self, job_id: str) -> None:
        with self._slots:
            with self._lock:
                self._queued.discard(job_id)
            try:
                self._run_once(job_id)
            except Exception as e:
                text = str(e) if isinstance(e, GcpodError) else f"Internal error: {type(e).__name__}: {e}"
                self._end(job_id, "FAILED", _INTERNAL, text)
            finally:
                shutil.rmtree(self._folder(job_id), ignore_errors=True)

    def _run_once(self, job_id: str) -> None:
        job = self.database.get(job_id)
        if job is None or job.state in TERMINAL or self._stopping:
            return
        if job.starts >= MAX_STARTS:
            self._end(job_id, "FAILED", _INTERNAL, f"The job was interrupted {MAX_STARTS} times.")
            return
        if self.database.update(job_id, unless=(*TERMINAL, "CANCELLING"), state="PENDING") is None:
            self._end(job_id, "CANCELLED")
            return
        command = self._prepare(job)
        if self._stopping:
            return
        if self.database.update(job_id, unless=(*TERMINAL, "CANCELLING"), state="RUNNING", starts=job.starts + 1,
                                started=job.started or self.database.clock()) is None:
            self._end(job_id, "CANCELLED")
            return
        process = Process(command, lambda severity, line: self.database.log(job_id, severity, TASK, [line]))
        with self._lock:
            self._processes[job_id] = process
        ended = self.database.get(job_id)
        if self._stopping or (ended is not None and ended.state == "CANCELLING"):
            process.end()
        late = threading.Event()
        limit_s = timeout_of(job.body["jobSpec"])

        def expire() -> None:
            late.set()
            process.end()

        timer = threading.Timer(min(limit_s, threading.TIMEOUT_MAX), expire)
        timer.daemon = True
        timer.start()
        code = process.wait()
        timer.cancel()
        self._finish(job_id, code, limit_s if late.is_set() else None)

    def _finish(self, job_id: str, code: int, late_s: float | None) -> None:
        with self._lock:
            self._processes.pop(job_id, None)
        job = self.database.get(job_id)
        if job is not None and job.state == "CANCELLING":
            self._end(job_id, "CANCELLED")
        elif late_s is not None:
            self._end(job_id, "FAILED", _DEADLINE, f"The job ran longer than its timeout of {late_s:g} s.")
        elif self._stopping:
            return
        elif code == 0:
            self._end(job_id, "SUCCEEDED")
        else:
            message = (
                f"The replica {TASK} exited with a non-zero status of {code}. To find out more about why your job "
                f"exited please check the logs: {self.url}/v2/entries:list?resource=ml_job%2Fjob_id%2F{job_id}"
            )
            self._end(job_id, "FAILED", _FAILED, message)

    def _end(self, job_id: str, state: str, code: int = 0, message: str = "") -> None:
        text = message or f"Job {state.lower()}."
        with self._ending:
            job = self.database.get(job_id)
            if job is None or job.state in TERMINAL:
                return
            shutil.rmtree(self._folder(job_id), ignore_errors=True)
            # The last line comes before the end, so that who sees the end can read every line.
            self.database.log(job_id, "ERROR" if state == "FAILED" else "INFO", "service", [text])
            self.database.update(job_id, state=state, ended=self.database.clock(), error_code=code, error=message)

    def _folder(self, job_id: str) -> Path:
        return inside(self.root / "jobs", job_id)

    def _prepare(self, job: JobRecord) -> Command:
        def say(line: str) -> None:
            self.database.log(job.id, "INFO", "service", [line])

        pool = job.body["jobSpec"]["workerPoolSpecs"][0]
        task = pool.get("containerSpec") or pool["pythonPackageSpec"]
        image = task.get("imageUri") or task.get("executorImageUri", "")
        runtime = runtime_of_image(image)
        if runtime is None:
            raise LocalCloudError("pulling the image", image, "the local cloud has no runtime for it",
                                  "use the trainer image of a runtime of gcpod")
        python = self.environment_of(runtime, image, self.cache, say)
        folder = self._folder(job.id)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        environment = {
            **base_environment(python, folder), **self.variables,
            **job_variables(job.id, project_number(job.project), self.location, job.body["jobSpec"]),
            **{variable["name"]: variable.get("value", "") for variable in task.get("env", [])},
        }
        if "containerSpec" in pool:
            argv = (*(task.get("command") or ENTRYPOINT), *task.get("args", []))
        else:
            python = self._install(task.get("packageUris", []), python, folder, environment, say)
            # A prebuilt image brings no launcher of ours; it comes as one of the packages.
            environment |= {"PATH": f"{python.parent}:{environment['PATH']}", "PYTHONPATH": ""}
            argv = (str(python), "-m", task["pythonModule"], *task.get("args", []))
        program = shutil.which(argv[0], path=environment["PATH"])
        if program is None:
            raise LocalCloudError("starting the job", argv[0], "the image has no such program", "correct the command")
        return Command((program, *argv[1:]), environment, folder)

    def _install(
        self, uris: list[str], python: Path, folder: Path, environment: dict[str, str], say: Callable[[str], None],
    ) -> Path:
        """An environment of the job's own over the runtime's, with the packages installed by pip, without an index."""
        packages = [self._fetch(GcsUri.parse(uri), folder / "packages") for uri in uris]
        own = folder / "environment"
        say(f"installing {len(packages)} packages")
        _checked([str(python), "-m", "venv", "--without-pip", str(own)], environment, "making the job's environment")
        libraries = next((own / "lib").glob("python*")) / "site-packages"
        runtime_libraries = next((python.parent.parent / "lib").glob("python*")) / "site-packages"
        (libraries / "runtime.pth").write_text(f"{runtime_libraries}\n")
        mine = own / "bin" / "python"
        options = ["install", "--no-index", "--no-deps", "--no-build-isolation", "--force-reinstall", "--quiet"]
        # The packages' own setup code runs here: it gets the job's environment, not the user's.
        environment = {**environment, "PYTHONPATH": ""}
        _checked([str(mine), "-m", "pip", *options, *map(str, packages)], environment, "installing the packages")
        return mine

    def _fetch(self, uri: GcsUri, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = inside(folder, uri.name.rsplit("/", 1)[-1])
        name = urllib.parse.quote(uri.name, safe="")
        address = f"{self.url}/storage/v1/b/{uri.bucket}/o/{name}?alt=media"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(address, timeout=60) as reply, path.open("wb") as f:
                shutil.copyfileobj(reply, f)
        except OSError as e:
            raise LocalCloudError("fetching the package", uri, str(e), "upload the packages again") from e
        return path


def _checked(command: list[str], environment: dict[str, str], tried: str) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()] or ["no message"]
        raise LocalCloudError(tried, command[0], lines[-1], "check that the package builds with setuptools alone")
