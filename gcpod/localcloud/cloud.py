"""The whole local cloud: storage, jobs, builds and their logs; served in this process, or by one of its own."""

from __future__ import annotations

import fcntl
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from gcpod.cache import cache_dir
from gcpod.errors import LocalCloudError
from gcpod.localcloud.billing_api import billing_api, local_catalogue
from gcpod.localcloud.builder import Builder
from gcpod.localcloud.builds_api import builds_api
from gcpod.localcloud.config import CloudConfig, Region
from gcpod.localcloud.faults import Faulty, skewed_clock
from gcpod.localcloud.faults_plan import FaultPlan
from gcpod.localcloud.http import Api
from gcpod.localcloud.jobdb import JobDatabase
from gcpod.localcloud.jobs_api import jobs_api
from gcpod.localcloud.logging_api import logging_api
from gcpod.localcloud.registry_api import Repositories, registry_api
from gcpod.localcloud.runtime import ensure_environment
from gcpod.localcloud.scheduler import LOCATION, EnvironmentOf, Scheduler
from gcpod.localcloud.server import LocalCloud, Plugin

URL_FILE = "url"
LOG_FILE = "server.log"
START_TIMEOUT_S = 30.0
_LOOK_S = 0.05


class JobCloud(LocalCloud):
    """Storage, custom jobs, builds, image repositories, log entries and prices below one folder; jobs and builds left
    unfinished by an earlier server are taken up.

    Args:
        root: the folder; one server at a time may use it.
        port: 0 picks a free one.
        cache: the user's cache directory, for runtimes.
        environment_of: makes a runtime's interpreter.
        location: the region it stands for; Google's own SDK and gcloud accept no other name than a real region's.
        middleware: wraps the ASGI application.
        config: the regions, in place of the one of `location`; builds, repositories and prices are those of the first.
        faults: what shall go wrong; ``faulty`` has the log of what did since the last start.
    """

    def __init__(
        self, root: Path, port: int = 0, cache: Path | None = None, environment_of: EnvironmentOf = ensure_environment,
        location: str = LOCATION, middleware: Callable[[ASGIApp], ASGIApp] = lambda app: app,
        faults: FaultPlan | None = None, config: CloudConfig | None = None,
    ) -> None:
        self.last_request = time.monotonic()
        self.database: JobDatabase | None = None
        self.scheduler: Scheduler | None = None
        self.build_database: JobDatabase | None = None
        self.builder: Builder | None = None
        self._cache, self._environment_of = cache or cache_dir(), environment_of
        self.config = config or CloudConfig((Region(location),))
        self._location = self.config.home.name
        self._faults, self._services = faults or FaultPlan(), list[Api]()
        self.faulty = Faulty(self._faults, lambda _: None)
        plugins = (self._jobs, self._builds, self._registry, self._logging, self._billing)
        super().__init__(
            root, port, apis=tuple(map(self._kept, plugins)),
            middleware=lambda app: self._noting(self.faulty.wrap(middleware(app), self._services)),
        )

    def start(self) -> JobCloud:
        super().start()
        for worker in (self.scheduler, self.builder):
            if worker is not None:
                worker.resume()
        return self

    def stop(self) -> None:
        self.faulty.close()
        super().stop()

    def __enter__(self) -> JobCloud:
        return self.start()

    @property
    def idle_s(self) -> float:
        """Seconds since the last request; 0 while a job or a build has not ended."""
        busy = any(worker is not None and worker.active for worker in (self.scheduler, self.builder))
        return 0.0 if busy else time.monotonic() - self.last_request

    def _kept(self, plugin: Plugin) -> Plugin:
        def make(cloud: LocalCloud) -> Api:
            self._services.append(api := plugin(cloud))
            return api

        return make

    def _jobs(self, cloud: LocalCloud) -> Api:
        clock = skewed_clock(self._faults.clock.skew_s)
        database = self.database = JobDatabase(self.root / "jobs.sqlite", clock)
        scheduler = self.scheduler = Scheduler(
            database, self.root, self._cache, cloud.url, cloud.job_environment(), self._environment_of, self.config,
        )
        self.faulty, self._services = Faulty(self._faults, database.get), []
        self.faulty.watch(scheduler)
        api = jobs_api(database, scheduler)
        api.close = self._close_jobs
        return api

    def _close_jobs(self) -> None:
        if self.scheduler is not None:
            self.scheduler.stop()
        if self.database is not None:
            self.database.close()
        self.scheduler = self.database = None

    def _builds(self, cloud: LocalCloud) -> Api:
        clock = skewed_clock(self._faults.clock.skew_s)
        database = self.build_database = JobDatabase(self.root / "builds.sqlite", clock)
        self._repositories = Repositories(self.root / "registry.sqlite", self._location)
        builder = self.builder = Builder(
            database, cloud.store, self._cache, cloud.url, self._repositories.find, self._environment_of,
        )
        api = builds_api(database, builder)
        api.close = self._close_builds
        return api

    def _close_builds(self) -> None:
        if self.builder is not None:
            self.builder.stop()
            self._repositories.close()
        if self.build_database is not None:
            self.build_database.close()
        self.builder = self.build_database = None

    def _registry(self, _: LocalCloud) -> Api:
        return registry_api(self._repositories)

    def _logging(self, _: LocalCloud) -> Api:
        # The plugins are called in their order: both are open.
        assert self.database is not None
        assert self.build_database is not None
        return logging_api(self.database, self.build_database)

    def _billing(self, _: LocalCloud) -> Api:
        return billing_api(*local_catalogue(self._location))

    def _noting(self, app: ASGIApp) -> ASGIApp:
        async def noting(scope: Scope, receive: Receive, send: Send) -> None:
            self.last_request = time.monotonic()
            await app(scope, receive, send)

        return noting


def serve(
    root: Path, port: int, ready_file: Path | None, idle_exit_s: float | None, announce: Callable[[str], None],
    faults: FaultPlan | None = None, config: CloudConfig | None = None,
) -> None:
    """Serves until SIGTERM, SIGINT or idleness; the base URL is written to files and announced once it serves, and
    after it every fault in force.

    Raises:
        LocalCloudError: the folder or the port is taken.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if not _held(root):
        (root / URL_FILE).unlink(missing_ok=True)
    try:
        cloud = JobCloud(root, port, faults=faults, config=config).start()
    except sqlite3.DatabaseError as e:
        raise LocalCloudError("opening the local cloud in", root, str(e), "move that folder away") from e
    with cloud:
        for path in (root / URL_FILE, ready_file):
            if path is not None:
                aside = path.with_name(path.name + ".part")
                aside.write_text(cloud.url + "\n", encoding="ascii")
                aside.replace(path)
        announce(cloud.url)
        for line in (faults or FaultPlan()).lines():
            announce(f"fault: {line}")
        while not stop.wait(1.0):
            if idle_exit_s is not None and cloud.idle_s > idle_exit_s:
                break
        (root / URL_FILE).unlink(missing_ok=True)


def running_url(root: Path) -> str | None:
    """The base URL of the server that holds a folder; None when none does."""
    # The file first: looking takes the lock for a moment, which must not meet a server that is starting.
    with suppress(OSError):
        url = (root / URL_FILE).read_text(encoding="ascii").strip()
        return url if url and _held(root) else None
    return None


def _held(root: Path) -> int | None:
    """The process that holds a folder's lock."""
    try:
        with (root / "lock").open("r+", encoding="ascii") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(lock.read().strip() or 0)
    except (OSError, ValueError):
        return None
    return None


def ensure_running(
    root: Path, idle_exit_s: float, clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """The base URL of the folder's server, which is started as a process of its own where none runs.

    It is detached, so that Ctrl-C ends the command and not the jobs, and ends by itself once idle.

    Raises:
        LocalCloudError: it does not come up.
    """
    root.mkdir(parents=True, exist_ok=True)
    with _starting(root):
        return running_url(root) or _start(root, idle_exit_s, clock, sleep)


@contextmanager
def _starting(root: Path) -> Iterator[None]:
    """One start at a time, so that two commands of one moment share a server."""
    with (root / "starting").open("w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def _start(root: Path, idle_exit_s: float, clock: Callable[[], float], sleep: Callable[[float], None]) -> str:
    (root / URL_FILE).unlink(missing_ok=True)
    command = [sys.executable, "-m", "gcpod", "local", "up", "--root", str(root), "--idle-exit-s", f"{idle_exit_s:g}"]
    with (root / LOG_FILE).open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )
    # It is waited for, so that no dead child is left behind when it ends before this process.
    threading.Thread(target=process.wait, daemon=True).start()
    deadline = clock() + START_TIMEOUT_S
    while clock() < deadline and process.poll() is None:
        url = running_url(root)
        if url is not None:
            return url
        sleep(_LOOK_S)
    lines = (root / LOG_FILE).read_text(encoding="utf-8", errors="replace").splitlines() or ["it said nothing"]
    raise LocalCloudError("starting the local cloud in", root, lines[-1], f"see {root / LOG_FILE}")


def stop_running(
    root: Path, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Ends the folder's server; returns whether there was one. Its unfinished jobs go on when it starts again."""
    holder = _held(root)
    if not holder:
        return False
    with suppress(ProcessLookupError):
        os.kill(holder, signal.SIGTERM)
    deadline = clock() + START_TIMEOUT_S
    while _held(root) and clock() < deadline:
        sleep(_LOOK_S)
    return True
