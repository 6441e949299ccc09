"""How much memory building a dataset takes: a million boxes, and 20 GB of images; each beside a tenth of it.

    python benchmarks/dataset_memory.py --dir /a/folder/on/a/disk

The boxes are a CSV table over 20 images. The images are 10 MB each: a real JPEG's head, then a hole in the file, then
the end marker, so that the set itself takes no room; the dataset made of it takes all of the 20 GB for a while.

Each build runs in a process of its own. What is told is its peak of resident memory, interpreter and libraries
included, and those of its helpers (VmHWM of proc(5), looked at twenty times a second). The script fails when that is
above 400 MB.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

LIMIT_MB = 400
BOXES, IMAGES = 1_000_000, 20
GIGABYTES, FILE_BYTES = 20, 10_000_000
SPARE_BYTES = 2_000_000_000
WIDTH, HEIGHT = 640, 480
HEADER = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
LABELS = ("cat", "dog", "raccoon")


def picture(number: int) -> bytes:
    """A JPEG that looks like no other."""
    from io import BytesIO

    from PIL import Image

    colours = random.Random(number).randbytes(8 * 8 * 3)  # noqa: S311 - a picture, no secret
    out = BytesIO()
    Image.frombytes("RGB", (8, 8), colours).resize((WIDTH, HEIGHT)).save(out, "JPEG")
    return out.getvalue()


def row(image: str, number: int) -> str:
    x, y = number % (WIDTH - 60), number % (HEIGHT - 60)
    return f"{image},{WIDTH},{HEIGHT},{LABELS[number % len(LABELS)]},{x},{y},{x + 50},{y + 40}\n"


def make_boxes(folder: Path, boxes: int) -> None:
    """Few images; their rows are mixed in the table."""
    (folder / "images").mkdir(parents=True)
    names = [f"image-{number}.jpg" for number in range(IMAGES)]
    for number, name in enumerate(names):
        (folder / "images" / name).write_bytes(picture(number))
    with (folder / "labels.csv").open("w", encoding="utf-8") as table:
        table.write(HEADER)
        table.writelines(row(names[number % IMAGES], number) for number in range(boxes))


def make_sparse(folder: Path, images: int) -> None:
    """Large images that differ by a comment segment (ITU-T T.81, B.2.4.5) and hold no pixels."""
    (folder / "images").mkdir(parents=True)
    whole = picture(0)
    scan = whole.index(b"\xff\xda")
    head = whole[2 : scan + 2 + int.from_bytes(whole[scan + 2 : scan + 4], "big")]
    with (folder / "labels.csv").open("w", encoding="utf-8") as table:
        table.write(HEADER)
        for number in range(images):
            name = f"image-{number:06d}.jpg"
            with (folder / "images" / name).open("wb") as file:
                file.write(b"\xff\xd8\xff\xfe\0\x08%06d" % number + head)
                file.truncate(FILE_BYTES - 2)
                file.seek(0, 2)
                file.write(b"\xff\xd9")
            table.write(row(name, number))


def watch(peaks: dict[str, int]) -> None:
    """Keeps the peak of each child of this process, in units of 1024 bytes: getrusage's would count that of its parent,
    which a process has until its exec."""
    while True:
        with contextlib.suppress(OSError, IndexError):
            for child in Path("/proc/self/task").glob("*/children"):
                for process in child.read_text(encoding="ascii").split():
                    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8", errors="replace")
                    peaks[process] = int(status.partition("VmHWM:")[2].split()[0])
        time.sleep(0.05)


def build(folder: Path, near: bool) -> None:
    """Builds in this process; prints its seconds and its peak in MB."""
    from gcpod.data.build import DatasetRequest, build_dataset

    request = DatasetRequest(folder / "images", folder / "labels.csv", folder / "out", near_duplicates=near)
    helpers: dict[str, int] = {}
    threading.Thread(target=watch, args=(helpers,), daemon=True).start()
    start = time.perf_counter()
    manifest = build_dataset(request)
    seconds = time.perf_counter() - start
    if sum(manifest.images.values()) != len(list((folder / "images").iterdir())):
        raise SystemExit("images were left out, so the peak says nothing")
    # Linux tells it in units of 1024 bytes (getrusage(2)).
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_mb = (own + sum(helpers.values())) * 1024 / 1e6
    print(seconds, peak_mb)


def peak(name: str, folder: Path, near: bool) -> float:
    """Builds the set in a fresh process, prints a line, deletes the set; returns the peak in MB."""
    command = [sys.executable, __file__, "build", str(folder), *([] if near else ["--no-near"])]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    shutil.rmtree(folder)
    seconds, peak_mb = map(float, done.stdout.split())
    print(f"{name:45} {peak_mb:7.0f} MB {seconds:9.1f} s", flush=True)
    return peak_mb


def affordable(wanted: float, scratch: Path) -> float:
    """As many gigabytes of images as there is room for the dataset of."""
    room = max(0, shutil.disk_usage(scratch).free - SPARE_BYTES) / 1e9
    if room >= wanted:
        return wanted
    print(f"there is no room for {wanted:g} GB at {scratch}: images of {room:.1f} GB instead; see --dir")
    return room


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dir", type=Path, help="where to put the sets and the datasets for the time of the run")
    parser.add_argument("--gigabytes", type=float, default=GIGABYTES, help="size of the image set, %(default)s")
    parser.add_argument("--boxes", type=int, default=BOXES, help="rows of the table, %(default)s")
    one = parser.add_subparsers(dest="command").add_parser("build", help="one build, measured")
    one.add_argument("folder", type=Path)
    one.add_argument("--no-near", action="store_true")
    given = parser.parse_args()
    if given.command == "build":
        build(given.folder, not given.no_near)
        return
    with tempfile.TemporaryDirectory(dir=given.dir) as name:
        scratch = Path(name)
        peaks = []
        for boxes in (given.boxes // 10, given.boxes):
            make_boxes(scratch / "boxes", boxes)
            peaks.append(peak(f"{boxes:,} boxes on {IMAGES} images", scratch / "boxes", near=True))
        gigabytes = affordable(given.gigabytes, scratch)
        for part in (gigabytes / 10, gigabytes):
            images = max(2, int(part * 1e9 / FILE_BYTES))
            make_sparse(scratch / "sparse", images)
            # Their pixels are a hole, which does not decode: headers and ends only.
            line = f"{images:,} images of {FILE_BYTES / 1e6:g} MB ({part:g} GB)"
            peaks.append(peak(line, scratch / "sparse", near=False))
    if max(peaks) > LIMIT_MB:
        raise SystemExit(f"a build took {max(peaks):.0f} MB of memory, the limit is {LIMIT_MB} MB")


if __name__ == "__main__":
    main()
