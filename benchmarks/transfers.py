"""How fast files go to a bucket and come back: gcpod, Google's tools and library, and a raw client, side by side.

    python benchmarks/transfers.py --dir /a/folder/on/a/disk

One local cloud in a process of its own serves all. Workloads: (A) 2,000 files of 20 KB, (B) 1,000 files of 100 KB,
(C) 8 files of 64 MiB, (D) one file of 1 GiB, each to a fresh prefix; (E) the tree of A again, unchanged, after each
peer has sent it once by itself; (F) an event file of 50 MB that grew by 1 %, brought up to date, by gcpod as its
TensorBoard commands do it; A-down and C-down, the trees of A and C into an empty folder. After each run what arrived is
held against what was sent, by size and checksum, and removed.

The rows take turns, and each round begins with another one; figures are medians of 5 rounds. A "command" is a whole
process, a "call" is made in a process that has its imports, as the library's users have them (upload_many's own worker
processes count as its time); each is compared with gcpod's of its kind, the ceilings with its call. gcpod has an empty
cache at each run but those of E. In F all peers go through a relay that counts the bytes the server sends, heads of
replies included; gsutil, whose way is TLS, has no part in it. gcloud and gsutil take part where they are installed.

The aims: on A and B 3 times as fast as gcloud storage; on C and D as fast as every peer, and 80 % of the ceiling, which
is the faster one where there are two; on E 20 times as fast as every peer; on F at most 1.05 bytes fetched for a new
one; at most 250 MB of memory. The script fails when one is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import os
import platform
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.transfer_peers import Kind, Peer, Place, Raw, downloads, files_in, gs, mirrors, repeats, uploads
from gcpod.checksums import file_crc32c
from gcpod.records import frame

ROUNDS: Final = 5
GCLOUD_AIM, CEILING_AIM, AGAIN_AIM, NEW_BYTES_AIM, MEMORY_AIM_MB = 3.0, 0.8, 20.0, 1.05, 250.0
GROWTH: Final = 0.01
_EVENT_BYTES: Final = 1000
_BLOCK: Final = 16 << 20
_FOLDERS: Final = 10
_LOG: Final = "events.out.tfevents.1.host"


@dataclass(frozen=True)
class Workload:
    title: str
    files: int
    size: int
    way: Literal["upload", "again", "download", "grown"] = "upload"

    def scaled(self, scale: float) -> Workload:
        if scale == 1:
            return self
        many = self.files > 100
        files, size = (max(1, int(self.files * scale)), self.size) if many else (self.files, int(self.size * scale))
        return replace(self, files=files, size=size, title=f"{self.title}, scaled by {scale:g}")


WORKLOADS: Final = {
    "A": Workload("2,000 files of 20 KB", 2000, 20_000),
    "B": Workload("1,000 files of 100 KB", 1000, 100_000),
    "C": Workload("8 files of 64 MiB", 8, 64 << 20),
    "D": Workload("one file of 1 GiB", 1, 1 << 30),
    "E": Workload("2,000 files of 20 KB again, unchanged", 2000, 20_000, "again"),
    "F": Workload("an event file of 50 MB that grew by 1 %", 1, 50_000_000, "grown"),
    "A-down": Workload("2,000 files of 20 KB", 2000, 20_000, "download"),
    "C-down": Workload("8 files of 64 MiB", 8, 64 << 20, "download"),
}


@dataclass(frozen=True)
class Sample:
    """One run: its seconds, and for E the objects sent again, for F the bytes fetched for each new one."""

    seconds: float
    extra: float | None = None


@dataclass(frozen=True)
class Aim:
    text: str
    reached: float
    wanted: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        return self.reached <= self.wanted if self.at_most else self.reached >= self.wanted

    def __str__(self) -> str:
        return f"{self.text} {self.reached:.2f}, the aim is {'at most' if self.at_most else 'at least'} {self.wanted:g}"


class Relay:
    """A port that passes everything on to the server, and counts the bytes that come back."""

    def __init__(self, url: str) -> None:
        self._server = urlsplit(url).netloc.split(":")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self.fetched = 0
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection((self._server[0], int(self._server[1])))
                for source, target, counted in ((client, server, False), (server, client, True)):
                    source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    threading.Thread(target=self._pass, args=(source, target, counted), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(256 << 10):
                if counted:
                    with self._lock:
                        self.fetched += len(piece)
                target.sendall(piece)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


def make_tree(folder: Path, work: Workload) -> Path:
    """Random files in a few subfolders, or one at the top."""
    for number in range(work.files):
        path = folder / (f"part-{number % _FOLDERS}" if work.files > 1 else "") / f"file-{number:05d}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for start in range(0, work.size, _BLOCK):
                file.write(os.urandom(min(_BLOCK, work.size - start)))
    return folder


def events(size: int) -> bytes:
    """Records of random payloads, framed as in event files; about ``size`` bytes."""
    return b"".join(frame(os.urandom(_EVENT_BYTES)) for _ in range(max(1, size // len(frame(bytes(_EVENT_BYTES))))))


def held(folder: Path) -> Counter[tuple[int, str]]:
    return Counter((path.stat().st_size, file_crc32c(path)) for path in files_in(folder))


def timed(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak_mb(command: Sequence[str]) -> float:
    """The peak of resident memory of a command and its helpers: VmHWM of proc(5), looked at a hundred times a second.
    What wait4(2) tells would count this process's memory, which a child has until its exec."""
    peaks: dict[str, int] = {}
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            for pid in _family(str(process.pid)):
                with contextlib.suppress(OSError, IndexError):
                    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
                    peaks[pid] = int(status.partition("VmHWM:")[2].split()[0])
            time.sleep(0.01)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return sum(peaks.values()) * 1024 / 1e6


def _family(pid: str) -> Iterator[str]:
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in children.read_text(encoding="ascii").split():
                yield from _family(child)


class Bench:
    """The workloads on one server.

    Args:
        place: the server and what reaches it.
        rounds: runs of each peer.
        gcpod: whether gcpod takes part.
    """

    def __init__(self, place: Place, rounds: int, gcpod: bool) -> None:
        self._place, self._rounds, self._gcpod = place, rounds, gcpod
        self._raw = Raw(place.url)
        self._caches = 0

    def measure(self, work: Workload) -> dict[Peer, list[Sample]]:
        """The samples of every peer."""
        with tempfile.TemporaryDirectory(dir=self._place.scratch) as name:
            folder = Path(name)
            if work.way == "grown":
                return self._grown(work, folder)
            tree = make_tree(folder / "tree", work)
            if work.way == "upload":
                return self._uploads(tree, work.files == 1)
            return self._again(tree) if work.way == "again" else self._downloads(tree, folder / "down")

    def memory_mb(self, work: Workload) -> float:
        """The peak of gcpod's process in one more upload, or download."""
        with tempfile.TemporaryDirectory(dir=self._place.scratch) as name:
            self._new_cache()
            peak = peak_mb(self._place.gcpod_command(str(make_tree(Path(name) / "tree", work)), gs("memory/")))
            if work.way == "download":
                peak = peak_mb(self._place.gcpod_command(gs("memory/"), f"{name}/back"))
        self._raw.delete("memory/")
        return peak

    def _uploads(self, tree: Path, parts: bool) -> dict[Peer, list[Sample]]:
        wanted = held(tree)

        def once(peer: Peer, prefix: str) -> Sample:
            seconds = timed(lambda: peer.copy(tree, prefix))
            self._same(peer, self._raw.holds(prefix), wanted)
            self._raw.delete(prefix)
            return Sample(seconds)

        return self._turns(uploads(self._place, parts), once)

    def _again(self, tree: Path) -> dict[Peer, list[Sample]]:
        peers, wanted = self._taking_part(repeats(self._place)), held(tree)
        self._new_cache()
        for number, peer in enumerate(peers):
            (peer.first or peer.copy)(tree, f"again/{number}/")

        def once(peer: Peer, _: str) -> Sample:
            prefix = f"again/{peers.index(peer)}/"
            before = self._raw.list(prefix)
            seconds = timed(lambda: peer.copy(tree, prefix))
            after = self._raw.list(prefix)
            self._same(peer, self._raw.holds(prefix), wanted)
            return Sample(seconds, sum(after[name]["generation"] != before[name]["generation"] for name in before))

        samples = self._turns(peers, once, fresh=False)
        self._raw.delete("again/")
        return samples

    def _downloads(self, tree: Path, down: Path) -> dict[Peer, list[Sample]]:
        self._raw.upload(tree, "source/")
        wanted = held(tree)

        def once(peer: Peer, _: str) -> Sample:
            down.mkdir()
            seconds = timed(lambda: peer.copy(down, "source/"))
            self._same(peer, held(down), wanted)
            shutil.rmtree(down)
            return Sample(seconds)

        samples = self._turns(downloads(self._place), once)
        self._raw.delete("source/")
        return samples

    def _grown(self, work: Workload, folder: Path) -> dict[Peer, list[Sample]]:
        old, new = events(work.size), events(int(work.size * GROWTH))
        states = [make_log(folder / "old", old), make_log(folder / "new", old + new)]
        wanted = held(states[1])
        relay = Relay(self._place.url)

        def once(peer: Peer, prefix: str) -> Sample:
            down = folder / "down"
            down.mkdir()
            self._raw.upload(states[0], prefix)
            (peer.first or peer.copy)(down, prefix)
            self._raw.upload(states[1], prefix)
            before = relay.fetched
            seconds = timed(lambda: peer.copy(down, prefix))
            fetched = relay.fetched - before
            self._same(peer, held(down), wanted)
            shutil.rmtree(down)
            self._raw.delete(prefix)
            return Sample(seconds, fetched / len(new))

        try:
            # gsutil's way to the server is TLS, where nothing can be counted.
            return self._turns(mirrors(replace(self._place, url=relay.url, tls_port=0)), once)
        finally:
            relay.close()

    def _turns(
        self, peers: Sequence[Peer], once: Callable[[Peer, str], Sample], fresh: bool = True,
    ) -> dict[Peer, list[Sample]]:
        taking_part = self._taking_part(peers)
        samples: dict[Peer, list[Sample]] = {peer: [] for peer in taking_part}
        for turn in range(self._rounds):
            first = turn % len(taking_part)
            for peer in taking_part[first:] + taking_part[:first]:
                if fresh:
                    self._new_cache()
                samples[peer].append(once(peer, f"{re.sub('[^a-z]+', '-', peer.label.lower())}/{turn}/"))
        return samples

    def _taking_part(self, peers: Sequence[Peer]) -> list[Peer]:
        return [
            peer for peer in peers
            if (self._gcpod or not peer.name.startswith("gcpod"))
            and (shutil.which("gcloud") or not peer.name.startswith("gcloud"))
        ]

    def _new_cache(self) -> None:
        self._caches += 1
        os.environ["GCPOD_CACHE"] = str(self._place.scratch / f"cache-{self._caches}")

    def _same(self, peer: Peer, there: Counter[tuple[int, str]], wanted: Counter[tuple[int, str]]) -> None:
        if there != wanted:
            raise SystemExit(f"{peer.label}: {there.total()} files arrived of {wanted.total()}, or their bytes differ")


def make_log(folder: Path, content: bytes) -> Path:
    folder.mkdir()
    (folder / _LOG).write_bytes(content)
    return folder


def medians_of(samples: dict[Peer, list[Sample]]) -> dict[Peer, float]:
    return {peer: statistics.median(one.seconds for one in runs) for peer, runs in samples.items()}


def own(medians: dict[Peer, float], kind: Kind) -> float | None:
    """gcpod's median of a kind; ceilings are held against its call."""
    wanted = "call" if kind == "ceiling" else kind
    return next((s for peer, s in medians.items() if peer.name.startswith("gcpod") and peer.kind == wanted), None)


def fastest(medians: dict[Peer, float], kind: Kind, name: str = "") -> tuple[Peer, float] | None:
    """The fastest of a kind beside gcpod."""
    others = [
        (peer, seconds) for peer, seconds in medians.items()
        if peer.kind == kind and not peer.name.startswith("gcpod") and peer.name.startswith(name)
    ]
    return min(others, key=lambda one: one[1], default=None)


def aims_of(key: str, samples: dict[Peer, list[Sample]]) -> list[Aim]:
    """What the aims for a workload came to."""
    medians, aims = medians_of(samples), []

    def faster(kind: Kind, wanted: float, name: str = "") -> None:
        peer, mine = fastest(medians, kind, name), own(medians, kind)
        if peer is not None and mine is not None:
            what = f"{'call' if kind == 'ceiling' else kind}: times as fast as {peer[0].name}"
            aims.append(Aim(what, peer[1] / mine, wanted))

    if key in ("A", "B"):
        faster("command", GCLOUD_AIM, "gcloud")
    elif key in ("C", "D"):
        faster("command", 1)
        faster("call", 1)
        faster("ceiling", CEILING_AIM)
    elif key == "E":
        faster("command", AGAIN_AIM)
        faster("call", AGAIN_AIM)
        again = [one.extra or 0 for peer, runs in samples.items() if peer.name.startswith("gcpod") for one in runs]
        aims.append(Aim("objects that gcpod sent again:", max(again), 0, at_most=True))
    elif key == "F":
        for peer, runs in samples.items():
            if peer.name.startswith("gcpod"):
                fetched = statistics.median(one.extra or 0 for one in runs)
                aims.append(Aim(f"{peer.kind}: bytes fetched for a new one", fetched, NEW_BYTES_AIM, at_most=True))
    return aims


def report(key: str, work: Workload, samples: dict[Peer, list[Sample]]) -> None:
    """One table."""
    medians = medians_of(samples)
    ways = {"upload": "up, to a fresh prefix", "again": "up", "download": "down, to an empty folder", "grown": "down"}
    extra = {"again": "sent again", "grown": "fetched/new"}.get(work.way, "")
    rounds = len(next(iter(samples.values())))
    print(f"\n{key}: {work.title}, {ways[work.way]}; medians of {rounds}")
    print(f"{'':50}{'s':>9}{'range':>18}{'MB/s':>8}{'x gcpod':>9} {extra:>12}")
    for peer, runs in samples.items():
        mine, seconds = own(medians, peer.kind), [one.seconds for one in runs]
        low, high = min(seconds), max(seconds)
        line = f"{peer.label:50}{medians[peer]:9.3f}{f'{low:.3f} to {high:.3f}':>18}"
        moved = work.files * work.size / 1e6 / medians[peer]
        line += f"{moved:8.0f}" if work.way in ("upload", "download") else f"{'':8}"
        line += f"{'-':>9}" if mine is None else f"{medians[peer] / mine:9.2f}"
        values = [one.extra for one in runs if one.extra is not None]
        print(line + (f" {statistics.median(values):12.3f}" if values else ""), flush=True)


def head(place: Place) -> None:
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("gcpod", "google-cloud-storage", "requests")]
    machine = [f"{os.cpu_count()} cores", f"Linux {platform.release()}", f"Python {platform.python_version()}"]
    print(", ".join(machine + versions))
    for tool in ("gcloud", "gsutil"):
        if shutil.which(tool) is None:
            print(f"{tool} is not installed: it takes no part")
            continue
        done = subprocess.run([tool, "version"], capture_output=True, text=True, check=False)
        print(done.stdout.partition("\n")[0].strip() or f"{tool} does not tell its version")
    if place.tls_port:
        print("gsutil speaks TLS only, through a proxy on this machine: its figures hold the price of that")


@contextlib.contextmanager
def serving(scratch: Path) -> Iterator[Place]:
    """A local cloud, and the TLS proxy in front of it for gsutil, each a process."""
    ready = scratch / "ready"
    command = [sys.executable, "-m", "gcpod", "local", "up", "--root", f"{scratch}/cloud", "--ready-file", str(ready)]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        stack.callback(server.terminate)
        while not ready.exists():
            if server.poll() is not None:
                raise SystemExit("the local cloud did not start")
            time.sleep(0.05)
        url, port = ready.read_text(encoding="utf-8").strip(), 0
        Raw(url).make_bucket()
        if shutil.which("gsutil"):
            script = Path(__file__).with_name("transfer_peers.py")
            line = [sys.executable, str(script), f"{scratch}/tls", str(urlsplit(url).port)]
            proxy = stack.enter_context(
                subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            stack.callback(proxy.terminate)
            assert proxy.stdout is not None
            port = int(proxy.stdout.readline())
        yield Place(url, scratch, port)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default=",".join(WORKLOADS), help="workloads, by default %(default)s")
    parser.add_argument("--runs", type=int, default=ROUNDS, help="rounds; the aims are for %(default)s")
    parser.add_argument("--scale", type=float, default=1.0, help="a part of each workload, to try the script")
    parser.add_argument("--peers", action="store_true", help="without gcpod")
    parser.add_argument("--dir", type=Path, help="where to put some 4 GB for the time of the run")
    given = parser.parse_args()
    if unknown := set(given.only.split(",")) - set(WORKLOADS):
        parser.error(f"no such workload: {', '.join(sorted(unknown))}")
    return given


def main() -> None:
    given, missed = arguments(), []
    # As in anybody's own shell, compiled modules are kept; without them gcpod's start is that of a first time.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(dir=given.dir) as name, serving(Path(name)) as place:
        head(place)
        # What later runs find compiled, imported and in the page cache.
        Bench(place, 1, not given.peers).measure(Workload("", 10, 1000))
        bench = Bench(place, given.runs, not given.peers)
        for key in given.only.split(","):
            work = WORKLOADS[key].scaled(given.scale)
            samples = bench.measure(work)
            report(key, work, samples)
            aims = [] if given.peers else aims_of(key, samples)
            if work.way in ("upload", "download") and not given.peers:
                aims.append(Aim("memory of gcpod copy, MB:", bench.memory_mb(work), MEMORY_AIM_MB, at_most=True))
            for aim in aims:
                print(f"  {aim}: {'met' if aim.met else 'MISSED'}", flush=True)
            missed += [f"{key}: {aim}" for aim in aims if not aim.met]
    if missed:
        raise SystemExit("missed: " + "; ".join(missed))


if __name__ == "__main__":
    main()
