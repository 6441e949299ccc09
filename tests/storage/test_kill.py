"""A process killed again and again in the middle of a transfer: the next one goes on, and loses a chunk at most."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gcpod.checksums import file_crc32c
from gcpod.localcloud.server import LocalCloud
from gcpod.session import Session
from gcpod.settings import resolve
from gcpod.spec import Spec
from gcpod.storage.objects import Objects
from gcpod.storage.traffic import CHUNK_BYTES
from gcpod.uris import GcsUri
from tests.waiting import until

from .faulty import Faulty, Request

KILLS = 25
MB = 1 << 20
SIZES = {"one.bin": 704 * MB + 1, "two.bin": 256 * MB, **{f"small-{number}.bin": 4 * MB for number in range(16)}}
POINTS = random.Random(20261121)  # noqa: S311 - no secret


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[LocalCloud]:
    with LocalCloud(tmp_path / "cloud") as running:
        yield running


@pytest.fixture
def proxy(cloud: LocalCloud) -> Iterator[Faulty]:
    with Faulty(cloud.url) as running:
        yield running


@pytest.fixture
def objects(cloud: LocalCloud) -> Iterator[Objects]:
    made = Objects(Session(resolve(Spec(), endpoint=cloud.url, environ={}, home=Path())))
    made.ensure_bucket("bench")
    yield made
    made.session.storage.close()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    for name, size in SIZES.items():
        block = os.urandom(MB)
        with (folder / name).open("wb") as file:
            for number in range(-(-size // MB)):
                file.write((number.to_bytes(8, "big") + block[8:])[:size - number * MB])
    return folder


def copying(proxy: Faulty, cache: Path, source: object, target: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "gcpod", "copy", str(source), str(target), "--endpoint", proxy.url]
    return subprocess.Popen(command, env={**os.environ, "GCPOD_CACHE": str(cache)}, stderr=subprocess.PIPE)


def killed(process: subprocess.Popen[bytes], proxy: Faulty, moved: Callable[[], int], goal: float) -> None:
    """Ends a process once so many bytes moved, and waits for what it had sent already."""
    until(lambda: moved() >= goal or process.poll() is not None, 120)
    assert process.poll() is None, "it was done before it could be killed"
    process.kill()
    process.communicate()
    until(lambda: proxy.connections.open == 0)


def finished(process: subprocess.Popen[bytes]) -> None:
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said.decode()


def chunk_ranges(log: list[Request], name: str) -> list[tuple[int, int]]:
    """First byte and the byte after the last of each chunk of a file, as far as it was sent."""
    found = []
    for one in log:
        if one.operation == "chunk" and one.name == name:
            start = int(re.findall(r"\d+", one.headers["content-range"])[0])
            found.append((start, start + one.body_bytes))
    return found


@pytest.mark.long
def test_an_upload_killed_25_times_sends_one_chunk_of_a_file_twice_at_most(
    proxy: Faulty, objects: Objects, tree: Path, tmp_path: Path,
) -> None:
    all_bytes, passed = sum(SIZES.values()), 0
    reached = dict.fromkeys(SIZES, 0)
    for _ in range(KILLS):
        proxy.clear()
        # All kills together pass over most of the gigabyte.
        goal = POINTS.uniform(0.1, 1.4) * all_bytes / KILLS
        process = copying(proxy, tmp_path / "cache", tree, "gs://bench/tree")
        killed(process, proxy, lambda: proxy.body_bytes("any").sent, goal)
        passed += check_nothing_doubled(proxy, reached)
    proxy.clear()
    finished(copying(proxy, tmp_path / "cache", tree, "gs://bench/tree"))
    passed += check_nothing_doubled(proxy, reached)
    there = {one.uri: one.crc32c for one in objects.list(GcsUri("bench"))}
    assert there == {GcsUri("bench", f"tree/{name}"): file_crc32c(tree / name) for name in SIZES}
    assert passed >= all_bytes
    # A process killed between the last answer and its note leaves one, which the service has forgotten by then.
    assert len(list((tmp_path / "cache" / "transfers").iterdir())) <= 1


def check_nothing_doubled(proxy: Faulty, reached: dict[str, int]) -> int:
    """Holds what one process sent against how far the ones before it had come; returns the bytes it sent."""
    log = proxy.log
    for name in SIZES:
        for start, end in chunk_ranges(log, f"tree/{name}"):
            assert reached[name] - start <= CHUNK_BYTES, name
            reached[name] = max(reached[name], end)
    return sum(one.body_bytes for one in log if one.operation in ("chunk", "insert"))


@pytest.mark.long
def test_a_download_killed_and_run_again_is_whole(
    proxy: Faulty, objects: Objects, tmp_path: Path,
) -> None:
    assert objects.list(GcsUri("bench")) == []
    source = tmp_path / "big.bin"
    source.write_bytes(os.urandom(160 * MB))
    finished(copying(proxy, tmp_path / "cache", source, "gs://bench/big.bin"))
    received = 0
    for share in (0.3, 0.4, 0.2):
        proxy.clear()
        process = copying(proxy, tmp_path / "cache", "gs://bench/big.bin", tmp_path / "out.bin")
        killed(process, proxy, lambda: proxy.body_bytes("get").received, share * 160 * MB)
        received += proxy.body_bytes("get").received
        assert not (tmp_path / "out.bin").exists()
    proxy.clear()
    finished(copying(proxy, tmp_path / "cache", "gs://bench/big.bin", tmp_path / "out.bin"))
    # Each kill cost what lay between the network and the disk, of five ranges.
    assert received + proxy.body_bytes("get").received < (160 + 3 * 5 * 12) * MB
    assert file_crc32c(tmp_path / "out.bin") == file_crc32c(source)
    assert not (tmp_path / ".gcpod-transfer").exists()
