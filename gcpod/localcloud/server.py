"""The local cloud as a running thing: one folder, one loopback port, the services that were plugged in."""

from __future__ import annotations

import datetime
import fcntl
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

import uvicorn
from starlette.types import ASGIApp

from gcpod.errors import LocalCloudError
from gcpod.localcloud.http import Api, App
from gcpod.localcloud.proxy import Proxy
from gcpod.localcloud.storage_api import storage_api
from gcpod.localcloud.store import Store

# Google's front ends keep connections for about ten minutes; a shorter time here would cut idle clients off.
_KEEP_ALIVE_S = 620
_LAST_WORDS_S = 2
_LOCK_TRIES, _LOCK_PAUSE_S = 10, 0.02
Plugin = Callable[["LocalCloud"], Api]
"""Makes a further service when the cloud starts; `LocalCloud.url` and `job_environment` are known by then."""


class LocalCloud:
    """A Google Cloud on 127.0.0.1 that keeps everything below one folder.

    Args:
        root: the folder; one server at a time may use it.
        port: 0 picks a free one.
        apis: further services beside Cloud Storage (custom jobs, logging), in order.
        middleware: wraps the ASGI application, for example to inject faults.

    Use it as a context manager, or call `start` and `stop`.
    """

    def __init__(
        self,
        root: Path,
        port: int = 0,
        apis: Sequence[Plugin] = (),
        middleware: Callable[[ASGIApp], ASGIApp] | None = None,
    ) -> None:
        self.root = root.resolve()
        self._port, self._plugins, self._middleware = port, tuple(apis), middleware
        self._running: _Running | None = None

    def start(self) -> LocalCloud:
        """Opens the store and serves.

        Raises:
            LocalCloudError: another process holds the folder, or the port is taken.
        """
        if self._running is None:
            self._running = _Running(self)
            try:
                self._running.serve(self, self._plugins, self._middleware)
            except BaseException:
                self.stop()
                raise
        return self

    def stop(self) -> None:
        """Ends running requests and frees the folder; harmless when not running."""
        running, self._running = self._running, None
        if running is not None:
            running.stop()

    def __enter__(self) -> LocalCloud:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The HTTP port.

        Raises:
            LocalCloudError: not running.
        """
        return self._alive().port

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``.

        Raises:
            LocalCloudError: not running.
        """
        return f"http://127.0.0.1:{self.port}"

    @property
    def store(self) -> Store:
        """The object store behind the storage service.

        Raises:
            LocalCloudError: not running.
        """
        return self._alive().store

    def job_environment(self) -> dict[str, str]:
        """What a process needs in its environment for every Google client in it, TensorFlow included, to come here.

        Raises:
            LocalCloudError: not running.
        """
        proxy = self._alive().proxy
        return {
            "https_proxy": f"http://127.0.0.1:{proxy.port}",
            "CURL_CA_BUNDLE": str(proxy.certificates.authority),
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "local",
            "STORAGE_EMULATOR_HOST": self.url,
        }

    def _alive(self) -> _Running:
        if self._running is None:
            raise LocalCloudError("asking the local cloud", self.root, "it is not running", "start it first")
        return self._running

    @property
    def wanted_port(self) -> int:
        """The port asked for; 0 stands for any."""
        return self._port


class _Running:
    """Everything that has to be given back when the cloud stops."""

    def __init__(self, cloud: LocalCloud) -> None:
        cloud.root.mkdir(parents=True, exist_ok=True)
        # Whoever reads this folder could read certificates and objects.
        cloud.root.chmod(0o700)
        self._lock = _take_lock(cloud.root / "lock")
        self._apis: list[Api] = []
        self._app: App | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._proxy_started = False
        try:
            self._socket = _bind(cloud.wanted_port)
            self.port: int = self._socket.getsockname()[1]
            self.store = Store(cloud.root / "storage")
        except BaseException:
            self._lock.close()
            raise
        self.proxy = Proxy(cloud.root / "tls", self.port, datetime.datetime.now(datetime.timezone.utc))
        self._spool = cloud.root / "spool"

    def serve(
        self,
        cloud: LocalCloud,
        plugins: Sequence[Plugin],
        middleware: Callable[[ASGIApp], ASGIApp] | None,
    ) -> None:
        shutil.rmtree(self._spool, ignore_errors=True)
        self._spool.mkdir()
        self.proxy.start()
        self._proxy_started = True
        self._apis.append(storage_api(self.store))
        for plugin in plugins:
            self._apis.append(plugin(cloud))
        self._app = App(self._apis, self._spool)
        served: ASGIApp = self._app if middleware is None else middleware(self._app)
        self._server = _Server(
            uvicorn.Config(
                served,
                http="httptools",
                loop="asyncio",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=_LAST_WORDS_S,
                server_header=False,
            )
        )
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="gcpod-localcloud", daemon=True
        )
        self._thread.start()
        self._server.ready.wait()

    def stop(self) -> None:
        if self._proxy_started:
            self.proxy.stop()
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join()
        for api in self._apis:
            api.close()
        if self._app is not None:
            self._app.close()
        self._socket.close()
        self.store.close()
        self._lock.close()


class _Server(uvicorn.Server):
    """Tells when it serves."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


def _bind(port: int) -> socket.socket:
    # The protocol is named because asyncio switches Nagle's delay off only where it is.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
    except OSError as error:
        listening.close()
        raise LocalCloudError(
            "listening on",
            f"127.0.0.1:{port}",
            error.strerror or str(error),
            "choose another port, or 0 for a free one",
        ) from None
    return listening


def _take_lock(path: Path) -> IO[str]:
    lock = path.open("a+", encoding="ascii")
    if not _locked(lock):
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise LocalCloudError(
            "starting the local cloud in",
            path.parent,
            f"process {holder} holds it",
            "stop that one or choose another folder",
        )
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _locked(lock: IO[str]) -> bool:
    # Who asks whether a server runs holds a shared lock for a moment, which must not keep one from starting.
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE_S)
        else:
            return True
    return False
