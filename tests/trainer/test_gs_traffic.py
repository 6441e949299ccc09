"""TensorFlow's own gs:// traffic through the local cloud: what it gets, and the requests by which it asks."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gcpod.cache import cache_dir
from gcpod.localcloud.listing import ListQuery
from gcpod.localcloud.runtime import ensure_environment
from gcpod.localcloud.server import LocalCloud
from gcpod.runtimes import find_runtime

pytestmark = pytest.mark.trainer
QUANTUM, MIB = 256 * 1024, 1 << 20
FRESH = {"GCS_STAT_CACHE_MAX_AGE": "0", "GCS_MATCHING_PATHS_CACHE_MAX_AGE": "0"}
"""TensorFlow keeps what it knows of objects for seconds, which would answer instead of the server."""
PRELUDE = """
import json, os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
import tensorflow as tf
gfile, root = tf.io.gfile, "gs://bkt/r"
found = {}
def put(name, content, mode="w"):
    with gfile.GFile(f"{root}/{name}", mode) as file:
        file.write(content)
def get(name, mode="r"):
    with gfile.GFile(f"{root}/{name}", mode) as file:
        return file.read()
def refused(function, *arguments, **options):
    try:
        function(*arguments, **options)
    except tf.errors.OpError as error:
        return type(error).__name__
"""
EPILOGUE = """
print("FOUND " + json.dumps(found))
"""


@dataclass(frozen=True)
class Asked:
    """One request; ``status`` is filled in once it is answered."""

    verb: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    status: list[int] = field(default_factory=list)


@dataclass
class Traffic:
    """Records every request; lets, when told to, only the first part of an upload arrive, and answers it 503."""

    asked: list[Asked] = field(default_factory=list)
    cut_after: int = 0

    def wrap(self, app: ASGIApp) -> ASGIApp:
        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            headers = {name.decode(): value.decode() for name, value in scope["headers"]}
            query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
            one = Asked(scope["method"], scope["raw_path"].decode(), query, headers)
            self.asked.append(one)

            async def noted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    one.status.append(message["status"])
                await send(message)

            if self.cut_after and one.verb == "PUT":
                await app(scope, self._shortened(receive), self._lost)
                await noted({"type": "http.response.start", "status": 503, "headers": [(b"content-length", b"0")]})
                await noted({"type": "http.response.body", "body": b""})
            else:
                await app(scope, receive, noted)

        return serve

    async def _lost(self, message: Message) -> None:
        """Swallows a reply."""

    def _shortened(self, receive: Receive) -> Receive:
        left, self.cut_after = self.cut_after, 0

        async def some() -> Message:
            nonlocal left
            if not left:
                return {"type": "http.disconnect"}
            body = (await receive()).get("body", b"")[:left]
            left -= len(body)
            return {"type": "http.request", "body": body, "more_body": True}

        return some

    def of(self, verb: str, path: str) -> list[Asked]:
        return [one for one in self.asked if one.verb == verb and re.fullmatch(path, one.path)]


@dataclass(frozen=True)
class Rig:
    """A cloud with the bucket ``bkt``, and a TensorFlow that reaches it as a job does."""

    cloud: LocalCloud
    traffic: Traffic
    python: Path

    def start(self, program: str, **environment: str) -> subprocess.Popen[str]:
        known = {name: value for name, value in os.environ.items() if not name.startswith(("GOOGLE_", "GCS_"))}
        return subprocess.Popen(
            [self.python, "-c", PRELUDE + program + EPILOGUE], text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env={**known, **self.cloud.job_environment(), **environment},
        )

    def run(self, program: str, **environment: str) -> dict[str, Any]:
        return result_of(self.start(program, **environment))


def result_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors[-3000:]
    [line] = [line for line in out.splitlines() if line.startswith("FOUND ")]
    value: dict[str, Any] = json.loads(line.removeprefix("FOUND "))
    return value


@pytest.fixture(scope="module", params=["tf2.12", "tf2.15"])
def python(request: pytest.FixtureRequest) -> Path:
    runtime = find_runtime(request.param)
    image = f"local-docker.pkg.dev/p/gcpod/{runtime.images['cpu']}:latest"
    return ensure_environment(runtime, image, cache_dir(), lambda _: None)


@pytest.fixture
def rig(python: Path, tmp_path: Path) -> Iterator[Rig]:
    traffic = Traffic()
    with LocalCloud(tmp_path / "cloud", middleware=traffic.wrap) as cloud:
        cloud.store.create_bucket("bkt", "p", {})
        yield Rig(cloud, traffic, python)


FILES = """
put("a/one.txt", "hello world")
found["exists"] = [gfile.exists(f"{root}/{name}") for name in ("a/one.txt", "a", "a/", "none")]
found["isdir"] = [gfile.isdir(f"{root}/{name}") for name in ("a/one.txt", "a", "a/", "none")]
gfile.makedirs(f"{root}/m/n")
found["made"] = [gfile.isdir(f"{root}/m/n"), gfile.listdir(f"{root}/m"), gfile.listdir(f"{root}/m/n")]
put("a/one.txt", "!more", "a")
with gfile.GFile(f"{root}/a/one.txt") as file:
    found["read"] = [file.size(), file.read(5), file.tell(), file.read(), file.read()]
    file.seek(6)
    found["read"] += [file.read(5), file.seek(0), file.readline()]
put("a/empty", "")
found["empty"] = [get("a/empty"), gfile.stat(f"{root}/a/empty").length, gfile.exists(f"{root}/a/empty")]
found["listdir"] = [gfile.listdir(root), sorted(gfile.listdir(f"{root}/a"))]
found["glob"] = [sorted(gfile.glob(f"{root}/{glob}")) for glob in ("a/*.txt", "*/e*", "?/o?e.*", "none*")]
found["walk"] = [[place, folders, sorted(files)] for place, folders, files in gfile.walk(root)]
gfile.copy(f"{root}/a/one.txt", f"{root}/b/two.txt")
found["copied again"] = refused(gfile.copy, f"{root}/a/one.txt", f"{root}/b/two.txt")
gfile.copy(f"{root}/a/empty", f"{root}/b/two.txt", overwrite=True)
found["copied over"] = get("b/two.txt")
gfile.rename(f"{root}/b/two.txt", f"{root}/b/three.txt")
found["renamed"] = gfile.listdir(f"{root}/b")
found["renamed onto"] = refused(gfile.rename, f"{root}/b/three.txt", f"{root}/a/one.txt")
gfile.rename(f"{root}/b/three.txt", f"{root}/a/one.txt", overwrite=True)
put("a/deep/x", "x")
gfile.rename(f"{root}/a", f"{root}/moved")
found["moved"] = [gfile.exists(f"{root}/a"), sorted(gfile.listdir(f"{root}/moved")), get("moved/deep/x")]
found["missing"] = [refused(get, "none"), refused(gfile.remove, f"{root}/none"), refused(gfile.stat, f"{root}/none"),
                    refused(gfile.listdir, f"{root}/none")]
found["not empty"] = refused(tf.compat.v1.gfile.DeleteRecursively, f"{root}/none")
gfile.rmtree(f"{root}/moved")
found["left"] = [gfile.exists(f"{root}/moved"), gfile.listdir(root)]
put("odd/ü #?%2F+&.txt", "odd")
found["odd"] = [get("odd/ü #?%2F+&.txt"), gfile.listdir(f"{root}/odd")]
"""


def test_files_and_folders(rig: Rig) -> None:
    found = rig.run(FILES, **FRESH)
    root = "gs://bkt/r"
    assert found == {
        "exists": [True, True, True, False],
        "isdir": [False, True, True, False],
        "made": [True, ["n/"], []],
        "read": [16, "hello", 5, " world!more", "", "world", None, "hello world!more"],
        "empty": ["", 0, True],
        "listdir": [["a/", "m/"], ["empty", "one.txt"]],
        "glob": [[f"{root}/a/one.txt"], [f"{root}/a/empty"], [f"{root}/a/one.txt"], []],
        "walk": [
            [root, ["a/", "m/"], []], [f"{root}/a/", [], ["empty", "one.txt"]], [f"{root}/m/", ["n/"], []],
            [f"{root}/m/n/", [], []],
        ],
        "copied again": "AlreadyExistsError",
        "copied over": "",
        "renamed": ["three.txt"],
        "renamed onto": "AlreadyExistsError",
        "moved": [False, ["deep/", "empty", "one.txt"], "x"],
        "missing": ["NotFoundError"] * 4,
        "not empty": "NotFoundError",
        "left": [False, ["m/"]],
        "odd": ["odd", ["ü #?%2F+&.txt"]],
    }
    check_requests(rig.traffic)


def check_requests(traffic: Traffic) -> None:
    """What TensorFlow sends, as it was when the local cloud was built for it."""
    begun = traffic.of("POST", "/upload/storage/v1/b/bkt/o")
    first = next(one for one in begun if one.query["name"] == "r/a/one.txt")
    assert first.query["uploadType"] == "resumable"
    assert (first.headers["x-upload-content-length"], first.headers["expect"]) == ("11", "100-continue")
    folders = [one for one in begun if one.query["uploadType"] == "media"]
    assert [(one.query["name"], one.query["ifGenerationMatch"]) for one in folders] == [("r/m/", "0"), ("r/m/n/", "0")]
    sent = traffic.of("PUT", "/upload/storage/v1/b/bkt/o")
    assert sent[0].headers["content-range"] == "bytes 0-10/11"
    assert {one.headers["transfer-encoding"] for one in sent} == {"chunked"}
    assert any("content-range" not in one.headers and one.query["name"] == "r/a/empty" for one in sent)
    read = traffic.of("GET", "/bkt/r.*")
    assert all(re.fullmatch(r"bytes=\d+-\d+", one.headers["range"]) and one.status[0] in (206, 416) for one in read)
    rewrites = traffic.of("POST", "/storage/v1/b/bkt/o/.*/rewriteTo/b/bkt/o/.*")
    assert len(rewrites) == 5
    assert all(one.status == [200] and one.headers["content-length"] == "0" for one in rewrites)
    listed = traffic.of("GET", "/storage/v1/b/bkt/o")
    assert {one.query["fields"] for one in listed} == {
        "items/name,nextPageToken", "items/name,prefixes,nextPageToken",
    }
    assert {one.query["fields"] for one in traffic.of("GET", "/storage/v1/b/bkt/o/.*")} == {"size,generation,updated"}
    assert all(200 <= one.status[0] < 300 or one.status[0] in (404, 416) for one in traffic.asked)


BLOCKS = """
content = os.urandom(2 << 20)
put("big", content, "wb")
with gfile.GFile(f"{root}/big", "rb") as file:
    found["whole"] = file.read() == content
    file.seek((2 << 20) - 10)
    found["tail"] = file.read(100) == content[-10:]
    file.seek(1 << 19)
    found["across"] = file.read(1 << 20) == content[1 << 19 : 3 << 19]
    found["end"] = len(file.read(1 << 20)) + len(file.read(1 << 20)) + len(file.read(1))
found["many"] = len(gfile.glob(f"{root}/many/*"))
found["listed"] = len(gfile.listdir(f"{root}/many"))
found["removed"] = gfile.rmtree(f"{root}/many") or gfile.exists(f"{root}/many")
"""


def test_blocks_and_pages(rig: Rig) -> None:
    store = rig.cloud.store
    for number in range(1050):
        store.insert("bkt", f"r/many/{number:04}", store.blobs.write([b""]), {})
    found = rig.run(BLOCKS, GCS_READ_CACHE_BLOCK_SIZE_MB="1", GCS_READ_CACHE_MAX_SIZE_MB="16", **FRESH)
    assert found == {
        "whole": True, "tail": True, "across": True, "end": MIB // 2, "many": 1050, "listed": 1050, "removed": False,
    }
    assert sum("pageToken" in one.query for one in rig.traffic.of("GET", "/storage/v1/b/bkt/o")) >= 2
    ranges = {one.headers["range"] for one in rig.traffic.of("GET", "/bkt/r%2Fbig")}
    assert ranges >= {f"bytes=0-{MIB - 1}", f"bytes={MIB}-{2 * MIB - 1}"}


def test_a_broken_upload_goes_on_where_it_was(rig: Rig) -> None:
    rig.traffic.cut_after = QUANTUM + 5000
    found = rig.run("""
content = os.urandom(1 << 20)
put("big", content, "wb")
found["same"] = get("big", "rb") == content
""")
    assert found == {"same": True}
    first, asked, *rest = rig.traffic.of("PUT", "/upload/storage/v1/b/bkt/o")
    assert (first.headers["content-range"], first.status) == (f"bytes 0-{MIB - 1}/{MIB}", [503])
    assert (asked.headers["content-range"], asked.status) == (f"bytes */{MIB}", [308])
    assert [(one.headers["content-range"], one.status) for one in rest] == [
        (f"bytes {QUANTUM}-{MIB - 1}/{MIB}", [200])
    ]


TRAINING = """
for shard in range(4):
    with tf.io.TFRecordWriter(f"{root}/data/train-{shard:05}-of-00004", "GZIP" if shard == 3 else "") as writer:
        for number in range(50):
            writer.write(f"{shard}-{number}".encode())
files = tf.data.Dataset.list_files(f"{root}/data/train-*-of-00004", shuffle=False)
plain = files.take(3).interleave(tf.data.TFRecordDataset, cycle_length=3, num_parallel_calls=3)
found["records"] = len({one.numpy() for one in plain})
found["packed"] = sum(1 for _ in tf.data.TFRecordDataset(f"{root}/data/train-00003-of-00004", "GZIP"))

step, weights = tf.Variable(0), tf.Variable(tf.random.normal([50_000]))
manager = tf.train.CheckpointManager(tf.train.Checkpoint(step=step, weights=weights), f"{root}/model", max_to_keep=2)
for number in range(1, 5):
    step.assign(number)
    manager.save(checkpoint_number=number)
found["kept"] = [sorted(gfile.listdir(f"{root}/model")), [path.rpartition("/")[2] for path in manager.checkpoints]]
kept = weights.numpy().copy()
step.assign(99)
weights.assign(tf.zeros([50_000]))
tf.train.Checkpoint(step=step, weights=weights).restore(tf.train.latest_checkpoint(f"{root}/model"))
found["restored"] = [int(step.numpy()), bool((weights.numpy() == kept).all())]
found["listed"] = [name for name, _ in tf.train.list_variables(f"{root}/model/ckpt-3")][:1]

sizes = []
writer = tf.summary.create_file_writer(f"{root}/logs")
with writer.as_default():
    for number in range(4):
        tf.summary.scalar("loss", 1.0 / (number + 1), step=number)
        writer.flush()
        [events] = gfile.glob(f"{root}/logs/*")
        seen = [value for event in tf.compat.v1.train.summary_iterator(events) for value in event.summary.value]
        sizes.append(len(seen))
found["summaries"] = sizes

class Double(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
    def __call__(self, x):
        return 2.0 * x

tf.saved_model.save(Double(), f"{root}/export")
found["export"] = [tf.saved_model.load(f"{root}/export")(tf.constant([1.0, 2.5])).numpy().tolist(),
                   sorted(gfile.listdir(f"{root}/export"))]
"""


def test_records_checkpoints_summaries_and_saved_models(rig: Rig) -> None:
    found = rig.run(TRAINING, **FRESH)
    assert (found["records"], found["packed"]) == (150, 50)
    assert found["kept"] == [
        ["checkpoint", *(f"ckpt-{n}.{end}" for n in (3, 4) for end in ("data-00000-of-00001", "index"))],
        ["ckpt-3", "ckpt-4"],
    ]
    assert (found["restored"], len(found["listed"])) == ([4, True], 1)
    assert found["summaries"] == [1, 2, 3, 4]
    assert found["export"][0] == [2.0, 5.0]
    assert {"saved_model.pb", "variables/"} <= set(found["export"][1])
    names = {one.name for one in rig.cloud.store.list("bkt", ListQuery(prefix="r/model/")).objects}
    assert not any("temp" in name or "tmp" in name for name in names)
    # Each file of a checkpoint is moved into its place: a reader sees all of it or nothing.
    moved = rig.traffic.of("POST", r"/storage/v1/b/bkt/o/.*tempstate.*/rewriteTo/b/bkt/o/r%2Fmodel.*")
    assert moved
    assert all(one.status == [200] for one in moved)


WRITER = """
step, weights = tf.Variable(0), tf.Variable(tf.zeros([200_000]))
manager = tf.train.CheckpointManager(tf.train.Checkpoint(step=step, weights=weights), f"{root}/model", max_to_keep=2)
for number in range(1, 13):
    step.assign(number)
    weights.assign(tf.fill([200_000], float(number)))
    manager.save(checkpoint_number=number)
put("done", "")
"""
READER = """
seen, torn = [], 0
while not seen or seen[-1] != 12:
    path = tf.train.latest_checkpoint(f"{root}/model")
    if path is None:
        continue
    try:
        reader = tf.train.load_checkpoint(path)
        step = int(reader.get_tensor("step/.ATTRIBUTES/VARIABLE_VALUE"))
        weights = reader.get_tensor("weights/.ATTRIBUTES/VARIABLE_VALUE")
    except (tf.errors.OpError, ValueError):
        # Rotated away meanwhile, or else an error.
        if gfile.exists(path + ".index"):
            raise
        continue
    torn += int(not (weights == step).all())
    seen.append(step)
found["torn"], found["ordered"], found["read"] = torn, seen == sorted(seen), len(set(seen))
"""


def test_checkpoints_are_read_while_they_are_written(rig: Rig) -> None:
    reader = rig.start(READER, **FRESH)
    assert rig.run(WRITER) == {}
    found = result_of(reader)
    assert (found["torn"], found["ordered"]) == (0, True)
    assert found["read"] >= 2
