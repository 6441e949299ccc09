"""How fast packages are made from a checkout: ``python setup.py sdist`` three times by hand, and gcpod, side by side.

    python benchmarks/packages.py

A folder in the shape of tensorflow/models, made of the pinned archive's own trees, and a small training package of the
user's own. By hand: setup.py copied to ``research``, then one sdist each of object_detection, slim and the package, in
copies of the folders, as setuptools writes into them; the ``.proto`` files are not compiled, which would come on top.
gcpod: the same three, with the protos compiled, and pycocotools and the launcher beside them. Cold: nothing is built
yet, downloads are there; warm: nothing changed since.

The rows take turns; each figure is the median of 5 rounds. By hand, three processes are what one waits for. Of gcpod
"call" is ``ensure_packages`` in a process that has started, as a run makes it among its other steps, and "command" the
whole process of ``gcpod package``, whose start is most of it when warm. The aims are those of the call: 3 times as fast
cold and 20 times warm. The script fails when one is missed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gcpod.cache import cache_dir
from gcpod.packaging.build import ensure_packages
from gcpod.packaging.protoc import ensure_protoc
from gcpod.packaging.protos import SUFFIX, modernise
from gcpod.runtimes import find_runtime, image_python
from tests.packaging.archives import write
from tests.packaging.checkout import make_checkout, pinned_trees
from tests.packaging.conftest import descriptor_in

RUNTIME = find_runtime("tf2.12")
COLD_AIM: Final = 3.0
WARM_AIM: Final = 20.0
TRAINING = {
    "setup.py": "from setuptools import find_packages, setup\n\n"
                "setup(name='trainer', version='1.0', packages=find_packages())\n",
    "trainer/__init__.py": "", "trainer/task.py": "print('training')\n",
}


def prepare(scratch: Path) -> None:
    """The checkout, the user's package, a spec that names them, and a cache that holds the downloads."""
    trees = pinned_trees()
    modules = {path: modernise(data.decode(), path) for path, data in trees["object_detection"].items()
               if path.endswith(SUFFIX)}
    make_checkout(scratch / "models", {path: descriptor_in(text) for path, text in modules.items()}, trees)
    write(scratch / "training", TRAINING)
    write(scratch, {"gcpod.yaml": "packages:\n  source: models\n  training: training\n"})
    ensure_protoc(cache_dir())
    ensure_packages(RUNTIME, image_python(RUNTIME, RUNTIME.images["cpu"]), cache_dir())
    for name in ("downloads", "tools"):
        (scratch / "cache").mkdir(exist_ok=True)
        (scratch / "cache" / name).symlink_to((cache_dir() / name).absolute())


def by_hand(scratch: Path) -> float:
    shutil.rmtree(scratch / "hand", ignore_errors=True)
    research = shutil.copytree(scratch / "models" / "research", scratch / "hand" / "research")
    training = shutil.copytree(scratch / "training", scratch / "hand" / "training")
    shutil.copy(research / "object_detection" / "packages" / "tf2" / "setup.py", research)
    start = time.perf_counter()
    for folder in (research, research / "slim", training):
        setup = [sys.executable, "setup.py", "--quiet", "sdist"]
        subprocess.run(setup, cwd=folder, check=True, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    if any(len(list((folder / "dist").iterdir())) != 1 for folder in (research, research / "slim", training)):
        raise SystemExit("setup.py made no sdist")
    return seconds


def call(scratch: Path) -> float:
    start = time.perf_counter()
    ensure_packages(RUNTIME, image_python(RUNTIME, RUNTIME.images["cpu"]), scratch / "cache",
                    source=scratch / "models", training=scratch / "training")
    return time.perf_counter() - start


def command(scratch: Path) -> float:
    environment = {**os.environ, "GCPOD_CACHE": str(scratch / "cache")}
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "gcpod", "package"], cwd=scratch, env=environment, check=True,
                   stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def cold(work: Callable[[Path], float], scratch: Path) -> float:
    shutil.rmtree(scratch / "cache" / "packages", ignore_errors=True)
    return work(scratch)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="%(default)s")
    rounds = parser.parse_args().rounds
    rows: dict[str, Callable[[Path], float]] = {
        "by hand: python setup.py sdist, 3 times": by_hand,
        "gcpod, cold, command": lambda scratch: cold(command, scratch),
        "gcpod, warm, command": command,
        "gcpod, cold, call": lambda scratch: cold(call, scratch),
        "gcpod, warm, call": call,
    }
    taken: dict[str, list[float]] = {name: [] for name in rows}
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name))
        call(Path(name))  # imports and reads what later calls find imported and in the page cache
        for _ in range(rounds):
            for row, work in rows.items():
                taken[row].append(work(Path(name)))
    medians = {row: statistics.median(seconds) for row, seconds in taken.items()}
    hand = next(iter(medians.values()))
    for row, seconds in medians.items():
        print(f"{row:42} {seconds * 1000:8.0f} ms {hand / seconds:8.1f} times as fast")
    for kind, aim in (("cold", COLD_AIM), ("warm", WARM_AIM)):
        if hand / medians[f"gcpod, {kind}, call"] < aim:
            raise SystemExit(f"{kind} it is not {aim:g} times as fast as by hand")


if __name__ == "__main__":
    main()
