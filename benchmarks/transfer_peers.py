"""What benchmarks/transfers.py runs side by side: gcpod, Google's two command lines, its Python library in three ways,
and a raw kept-alive HTTP client whose time is the server's own.

gsutil speaks TLS only. So it is sent, unmodified, through the local cloud's TLS proxy, in a process of its own:

    python benchmarks/transfer_peers.py FOLDER HTTP_PORT

serves that proxy until its input ends, and prints its port.
"""

from __future__ import annotations

import datetime
import http.client
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote, urlencode, urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gcpod.uris import GcsUri

BUCKET: Final = "bench"
THREADS: Final = 8
_PIECE: Final = 1 << 20
_API: Final = f"/storage/v1/b/{BUCKET}/o"
_JSON: Final = {"Content-Type": "application/json"}

Kind = Literal["command", "call", "ceiling"]
"""A whole process; a call in a process that has its imports; the same bytes by a raw client."""

Copy = Callable[[Path, str], None]
"""Moves between a local folder and a prefix of the bucket, which ends in a slash."""


@dataclass(frozen=True)
class Peer:
    """One way to move files. ``first`` is what goes before an unchanged tree: the same, unless told."""

    name: str
    kind: Kind
    copy: Copy
    first: Copy | None = None

    @property
    def label(self) -> str:
        return f"{self.name} [{self.kind}]"


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


class Raw:
    """A client that does nothing but send requests, several at once over kept connections."""

    def __init__(self, url: str) -> None:
        self._host = urlsplit(url).netloc

    def each(self, work: Callable[[http.client.HTTPConnection, Any], None], items: Sequence[Any]) -> None:
        def share(start: int) -> None:
            connection = http.client.HTTPConnection(self._host)
            for item in items[start::THREADS]:
                work(connection, item)
            connection.close()

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(share, range(min(THREADS, len(items)))))

    def upload(self, folder: Path, prefix: str) -> None:
        self.each(_insert, [(path, prefix + path.relative_to(folder).as_posix(), None) for path in files_in(folder)])

    def upload_parts(self, folder: Path, prefix: str) -> None:
        """Each file in as many parts as there are threads, composed to one object; the parts go."""
        for path in files_in(folder):
            name, size = prefix + path.relative_to(folder).as_posix(), path.stat().st_size
            cuts = [size * part // THREADS for part in range(THREADS + 1)]
            parts = [(path, f"{name}.{start}", (start, end)) for start, end in itertools.pairwise(cuts)]
            self.each(_insert, parts)
            request = {"sourceObjects": [{"name": part[1]} for part in parts], "deleteSourceObjects": True}
            connection = http.client.HTTPConnection(self._host)
            target = f"{_API}/{quote(name, safe='')}/compose"
            _reply(connection, "POST", target, json.dumps(request).encode(), _JSON)
            connection.close()

    def download(self, folder: Path, prefix: str) -> None:
        for name in (names := list(self.list(prefix))):
            (folder / name.removeprefix(prefix)).parent.mkdir(parents=True, exist_ok=True)
        self.each(_get, [(name, folder / name.removeprefix(prefix)) for name in names])

    def download_new(self, folder: Path, prefix: str) -> None:
        """As `download`, but files that are there get only what lies beyond their size."""
        sizes = {name: (folder / name.removeprefix(prefix)).stat().st_size for name in self.list(prefix)}
        for name, known in sizes.items():
            connection = http.client.HTTPConnection(self._host)
            new = _reply(connection, "GET", _address(name), headers={"Range": f"bytes={known}-"})
            connection.close()
            with (folder / name.removeprefix(prefix)).open("ab") as file:
                file.write(new)

    def list(self, prefix: str) -> dict[str, dict[str, Any]]:
        """Object resources by name."""
        found: dict[str, dict[str, Any]] = {}
        query, connection = {"prefix": prefix}, http.client.HTTPConnection(self._host)
        while True:
            page = json.loads(_reply(connection, "GET", f"{_API}?{urlencode(query)}"))
            found |= {one["name"]: one for one in page.get("items", ())}
            if "nextPageToken" not in page:
                connection.close()
                return found
            query["pageToken"] = page["nextPageToken"]

    def look(self, prefix: str) -> None:
        """As `list`, for nobody."""
        self.list(prefix)

    def delete(self, prefix: str) -> None:
        self.each(lambda connection, name: _discard(connection, name), list(self.list(prefix)))

    def make_bucket(self) -> None:
        connection = http.client.HTTPConnection(self._host)
        _reply(connection, "POST", "/storage/v1/b?project=p", json.dumps({"name": BUCKET}).encode(), _JSON)
        connection.close()

    def holds(self, prefix: str) -> Counter[tuple[int, str]]:
        """How many objects there are of each size and checksum."""
        return Counter((int(one["size"]), one["crc32c"]) for one in self.list(prefix).values())


def _address(name: str) -> str:
    return f"{_API}/{quote(name, safe='')}?alt=media"


def _reply(
    connection: http.client.HTTPConnection, method: str, path: str, body: Any = None,
    headers: dict[str, str] | None = None,
) -> bytes:
    connection.request(method, path, body, headers or {})
    reply = connection.getresponse()
    content = reply.read()
    if reply.status >= 300:
        raise SystemExit(f"{method} {path}: {reply.status} {content[:300]!r}")
    return content


def _insert(connection: http.client.HTTPConnection, item: tuple[Path, str, tuple[int, int] | None]) -> None:
    path, name, part = item
    start, end = part or (0, path.stat().st_size)
    body = path.read_bytes() if end - start <= _PIECE else _pieces(path, start, end)
    headers = {"Content-Length": str(end - start), "Content-Type": "application/octet-stream"}
    query = urlencode({"uploadType": "media", "name": name})
    _reply(connection, "POST", f"/upload{_API}?{query}", body, headers)


def _pieces(path: Path, start: int, end: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        for place in range(start, end, _PIECE):
            yield file.read(min(_PIECE, end - place))


def _get(connection: http.client.HTTPConnection, item: tuple[str, Path]) -> None:
    name, path = item
    connection.request("GET", _address(name))
    reply = connection.getresponse()
    if reply.status != 200:
        raise SystemExit(f"GET {name}: {reply.status} {reply.read()[:300]!r}")
    with path.open("wb") as file:
        shutil.copyfileobj(reply, file, _PIECE)


def _discard(connection: http.client.HTTPConnection, name: str) -> None:
    _reply(connection, "DELETE", f"{_API}/{quote(name, safe='')}")


@dataclass(frozen=True)
class Place:
    """The server, and a folder for what the clients keep; ``tls_port`` is the proxy's, 0 where there is no gsutil."""

    url: str
    scratch: Path
    tls_port: int = 0

    @cached_property
    def client(self) -> Any:
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage

        return storage.Client("p", AnonymousCredentials(), client_options={"api_endpoint": self.url})

    def gcloud(self, *arguments: str) -> None:
        # https://cloud.google.com/sdk/docs/properties#setting_properties_via_environment_variables
        run(["gcloud", "storage", *arguments], {
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"{self.url}/storage/v1/",
            "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
            "CLOUDSDK_CORE_PROJECT": "p",
            **self._quiet_gcloud,
        })

    def gsutil(self, *arguments: str) -> None:
        config = self.scratch / "boto"
        config.write_text(
            f"[Boto]\nproxy = 127.0.0.1\nproxy_port = {self.tls_port}\nhttps_validate_certificates = False\n"
            f"[GSUtil]\nstate_dir = {self.scratch}/gsutil\ndefault_project_id = p\nsoftware_update_check_period = 0\n",
            encoding="utf-8",
        )
        environment = {"BOTO_CONFIG": str(config), "CLOUDSDK_CORE_PASS_CREDENTIALS_TO_GSUTIL": "false"}
        run(["gsutil", "-m", *arguments], {**environment, **self._quiet_gcloud})

    @property
    def _quiet_gcloud(self) -> dict[str, str]:
        return {
            "CLOUDSDK_CONFIG": str(self.scratch / "gcloud"),
            "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
            "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "true",
            "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
        }

    def gcpod_command(self, source: str, target: str) -> list[str]:
        return [sys.executable, "-m", "gcpod", "copy", source, target, "--endpoint", self.url, "--quiet"]

    def gcpod_call(self, source: str, target: str) -> None:
        from gcpod.copying import copy

        copy(source, target, endpoint=self.url)

    def gcpod_logs(self, folder: Path, prefix: str) -> None:
        from gcpod.connection import connect
        from gcpod.results.tensorboard import fetch_tensorboard
        from gcpod.spec import Spec
        from gcpod.storage.objects import Objects

        fetch_tensorboard(Objects(connect(Spec(), endpoint=self.url)), GcsUri.parse(gs(prefix)), folder)


def run(command: Sequence[str], more: dict[str, str]) -> None:
    done = subprocess.run(
        command, env={**os.environ, **more}, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )
    if done.returncode:
        lines = done.stderr.splitlines()
        told = [line for line in lines if re.search("error|exception", line, re.IGNORECASE)] or lines
        raise SystemExit("\n".join([f"{' '.join(command[:4])} … ended with {done.returncode}:", *told[-10:]]))


def gs(prefix: str) -> str:
    return f"gs://{BUCKET}/{prefix}"


def _inside(folder: Path) -> list[str]:
    """What a folder holds; copying the folder itself would add its name on the other side."""
    return [str(path) for path in sorted(folder.iterdir())]


def _upload_many(place: Place, worker: str, skip: bool, folder: Path, prefix: str) -> None:
    from google.api_core.exceptions import PreconditionFailed
    from google.cloud.storage import transfer_manager

    names = [path.relative_to(folder).as_posix() for path in files_in(folder)]
    results = transfer_manager.upload_many_from_filenames(
        place.client.bucket(BUCKET), names, str(folder), prefix, skip_if_exists=skip, worker_type=worker,
        max_workers=THREADS, raise_exception=not skip,
    )
    # By skip_if_exists everything is sent under ifGenerationMatch=0, and what the server refuses is the skipped.
    if failed := [one for one in results if isinstance(one, Exception) and not isinstance(one, PreconditionFailed)]:
        raise SystemExit(f"upload_many: {failed[0]}")


def _upload_chunks(place: Place, worker: str, folder: Path, prefix: str) -> None:
    from google.cloud.storage import transfer_manager

    for path in files_in(folder):
        blob = place.client.bucket(BUCKET).blob(prefix + path.relative_to(folder).as_posix())
        transfer_manager.upload_chunks_concurrently(str(path), blob, worker_type=worker, max_workers=THREADS)


def _upload_loop(place: Place, folder: Path, prefix: str) -> None:
    bucket = place.client.bucket(BUCKET)
    for path in files_in(folder):
        bucket.blob(prefix + path.relative_to(folder).as_posix()).upload_from_filename(str(path))


def _download_many(place: Place, worker: str, folder: Path, prefix: str) -> None:
    from google.cloud.storage import transfer_manager

    names = [blob.name.removeprefix(prefix) for blob in place.client.list_blobs(BUCKET, prefix=prefix)]
    transfer_manager.download_many_to_path(
        place.client.bucket(BUCKET), names, str(folder), prefix, worker_type=worker, max_workers=THREADS,
        raise_exception=True,
    )


def _download_loop(place: Place, folder: Path, prefix: str) -> None:
    for blob in place.client.list_blobs(BUCKET, prefix=prefix):
        path = folder / blob.name.removeprefix(prefix)
        path.parent.mkdir(parents=True, exist_ok=True)
        blob.download_to_filename(str(path))


def _gcpod(place: Place, up: bool) -> list[Peer]:
    def ends(folder: Path, prefix: str) -> tuple[str, str]:
        return (str(folder), gs(prefix)) if up else (gs(prefix), str(folder))

    return [
        Peer("gcpod copy", "command", lambda f, p: run(place.gcpod_command(*ends(f, p)), {})),
        Peer("gcpod.copy", "call", lambda f, p: place.gcpod_call(*ends(f, p))),
    ]


def _gsutil(place: Place, name: str, copy: Copy) -> list[Peer]:
    return [Peer(f"gsutil -m {name}, over TLS", "command", copy)] if place.tls_port else []


def uploads(place: Place, parts: bool) -> list[Peer]:
    """Everything that can send a tree to a fresh prefix; with ``parts`` also what sends one file in several parts."""
    raw = Raw(place.url)
    peers = [
        *_gcpod(place, up=True),
        Peer("gcloud storage cp -r", "command", lambda f, p: place.gcloud("cp", "-r", *_inside(f), gs(p))),
        *_gsutil(place, "cp -r", lambda f, p: place.gsutil("cp", "-r", *_inside(f), gs(p))),
        Peer("upload_many, threads", "call", partial(_upload_many, place, "thread", False)),
        Peer("upload_many, processes", "call", partial(_upload_many, place, "process", False)),
        Peer("loop of upload_from_filename", "call", partial(_upload_loop, place)),
        Peer("raw client", "ceiling", raw.upload),
    ]
    if parts:
        peers += [
            Peer("upload_chunks_concurrently, threads", "call", partial(_upload_chunks, place, "thread")),
            Peer("upload_chunks_concurrently, processes", "call", partial(_upload_chunks, place, "process")),
            Peer(f"raw client, {THREADS} parts composed", "ceiling", raw.upload_parts),
        ]
    return peers


def repeats(place: Place) -> list[Peer]:
    """Everything that can be told to send a tree that lies there already."""
    raw = Raw(place.url)
    rsync = "rsync -r"
    return [
        *_gcpod(place, up=True),
        Peer(f"gcloud storage {rsync}", "command", lambda f, p: place.gcloud("rsync", "-r", str(f), gs(p))),
        Peer("gcloud storage cp -r", "command", lambda f, p: place.gcloud("cp", "-r", *_inside(f), gs(p))),
        *_gsutil(place, rsync, lambda f, p: place.gsutil("rsync", "-r", str(f), gs(p))),
        Peer("upload_many, threads, skip_if_exists", "call", partial(_upload_many, place, "thread", True)),
        Peer("upload_many, processes, skip_if_exists", "call", partial(_upload_many, place, "process", True)),
        Peer("loop of upload_from_filename", "call", partial(_upload_loop, place)),
        Peer("raw client, listing only", "ceiling", lambda _, p: raw.look(p), raw.upload),
    ]


def downloads(place: Place) -> list[Peer]:
    """Everything that can fetch a prefix into an empty folder."""
    return [
        *_gcpod(place, up=False),
        Peer("gcloud storage cp -r", "command", lambda f, p: place.gcloud("cp", "-r", gs(f"{p}*"), str(f))),
        *_gsutil(place, "cp -r", lambda f, p: place.gsutil("cp", "-r", gs(f"{p}*"), str(f))),
        Peer("download_many, threads", "call", partial(_download_many, place, "thread")),
        Peer("download_many, processes", "call", partial(_download_many, place, "process")),
        Peer("loop of download_to_filename", "call", partial(_download_loop, place)),
        Peer("raw client", "ceiling", Raw(place.url).download),
    ]


def mirrors(place: Place) -> list[Peer]:
    """Everything that can bring a folder up to date with a prefix; gcpod does it as it does for TensorBoard."""
    raw = Raw(place.url)
    return [
        Peer("gcpod fetch_tensorboard", "call", place.gcpod_logs),
        Peer("gcloud storage rsync -r", "command", lambda f, p: place.gcloud("rsync", "-r", gs(p), str(f))),
        *_gsutil(place, "rsync -r", lambda f, p: place.gsutil("rsync", "-r", gs(p), str(f))),
        Peer("loop of download_to_filename", "call", partial(_download_loop, place)),
        Peer("raw client, from the known size", "ceiling", raw.download_new, raw.download),
    ]


def serve_tls(folder: Path, http_port: int) -> None:
    from gcpod.localcloud.proxy import Proxy

    proxy = Proxy(folder, http_port, datetime.datetime.now(datetime.timezone.utc))
    proxy.start()
    print(proxy.port, flush=True)
    sys.stdin.read()
    proxy.stop()


if __name__ == "__main__":
    serve_tls(Path(sys.argv[1]), int(sys.argv[2]))
