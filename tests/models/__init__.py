"""What tests of models share: archives like the zoo's, and a server that fails as it is told to."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from gcpod.models.zoo import ZooModel, find_model

TF1_NAME = "ssd_mobilenet_v1_coco_2018_01_28"
TF2_NAME = "ssd_mobilenet_v2_320x320_coco17_tpu-8"
OBJECT_GRAPH = b"\x00\x1c\x09_CHECKPOINTABLE_OBJECT_GRAPH\x08\x07"
"""How the key stands in an index that TensorFlow wrote."""
WEIGHTS = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(9_400))
"""300 KB that do not pack."""

TF1_FILES = {
    "model.ckpt.index": b"\x00\x00FeatureExtractor/MobilenetV1/Conv2d_0/weights",
    "model.ckpt.data-00000-of-00001": WEIGHTS,
    "model.ckpt.meta": b"graph",
    "frozen_inference_graph.pb": b"frozen",
    "pipeline.config": b"model { ssd { } }",
    "saved_model/variables/variables.index": b"",
    "saved_model/variables/variables.data-00000-of-00001": b"",
}
TF2_FILES = {
    "checkpoint/ckpt-0.index": b"\x00\x00" + OBJECT_GRAPH + b"model/_feature_extractor",
    "checkpoint/ckpt-0.data-00000-of-00001": WEIGHTS,
    "checkpoint/checkpoint": b'model_checkpoint_path: "ckpt-0"\n',
    "pipeline.config": b"model { ssd { } }",
    "saved_model/saved_model.pb": b"saved",
    "saved_model/variables/variables.index": OBJECT_GRAPH,
    "saved_model/variables/variables.data-00000-of-00001": b"",
}


def member(name: str, content: bytes = b"", **more: Any) -> tuple[tarfile.TarInfo, bytes]:
    """A member of an archive; further values are TarInfo's own."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in more.items():
        setattr(info, key, value)
    return info, content


def packed(members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """A ``.tar.gz`` of members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def archive(files: Mapping[str, bytes], top: str = "model") -> bytes:
    """A ``.tar.gz`` as the zoo has them: folders and files below one folder."""
    folders = [member(top, type=tarfile.DIRTYPE)]
    return packed([*folders, *(member(f"{top}/{name}", content) for name, content in files.items())])


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request.

    Attributes:
        status: answered in place of the file.
        headers: that go with it.
        after: so many bytes of the body are sent, then the connection breaks.
        hang: it does not break then, but stays silent.
        bare: neither Content-Length nor ETag is sent.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    after: int | None = None
    hang: bool = False
    bare: bool = False


@dataclass
class Asked:
    """One request, and how much of the file its reply brought."""

    path: str
    range: str | None
    if_range: str | None
    sent: int = 0


class FileServer(ThreadingHTTPServer):
    """Serves one content under any path; ``faults`` are for the next requests, one each.

    Attributes:
        ranges: whether it knows Range.
        obeys_if_range: whether a range of a changed file is refused, as it must be.
    """

    def __init__(self, content: bytes = b"", etag: str = '"1"') -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content, self.etag = content, etag
        self.ranges = self.obeys_if_range = True
        self.faults: list[Fault] = []
        self.asked: list[Asked] = []
        self.released = threading.Event()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.002})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def model(self, name: str = TF2_NAME) -> ZooModel:
        """A model of the zoo, at this server's address."""
        return replace(find_model(name), url=f"{self.url}/{name}.tar.gz")

    def __enter__(self) -> FileServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what some tests want."""


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        server = self.server
        asked = Asked(self.path, self.headers["Range"], self.headers["If-Range"])
        server.asked.append(asked)
        fault = server.faults.pop(0) if server.faults else Fault()
        if fault.status != 200:
            self._head(fault.status, {"Content-Length": "0", **fault.headers})
            return
        start, status = 0, 200
        if asked.range and server.ranges and (not server.obeys_if_range or asked.if_range == server.etag):
            start, status = int(asked.range.removeprefix("bytes=").removesuffix("-")), 206
        if start >= len(server.content) > 0:
            self._head(416, {"Content-Length": "0"})
            return
        body = server.content[start:]
        headers = {} if fault.bare else {"Content-Length": str(len(body)), "ETag": server.etag}
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{len(server.content) - 1}/{len(server.content)}"
        self._head(status, headers | dict(fault.headers))
        asked.sent = self.wfile.write(body[:fault.after])
        if fault.hang:
            self.wfile.flush()
            server.released.wait()

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: ``asked`` has it all."""
