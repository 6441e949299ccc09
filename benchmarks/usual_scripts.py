"""The two scripts by which datasets are usually made, as this benchmark's own equivalents, to compare with.

    python benchmarks/usual_scripts.py xml_to_csv ANNOTATIONS OUT.csv
    python benchmarks/usual_scripts.py csv_to_record IN.csv IMAGES OUT.record

They do what the many tutorials' scripts of these names do, with the same libraries: one process, one image after the
other, nothing checked. The last line each prints is the seconds of its work, imports left out. `benchmarks/datasets.py`
runs them; they need pandas, Pillow and TensorFlow, but not gcpod.
"""

from __future__ import annotations

import argparse
import time
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas
from PIL import Image

COLUMNS = ["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"]
EDGES = ("xmin", "ymin", "xmax", "ymax")


def xml_to_csv(annotations: Path, out: Path) -> float:
    """Writes a row for each object of each Pascal VOC file; returns the seconds it took."""
    start = time.perf_counter()
    rows = []
    for path in annotations.glob("*.xml"):
        root = ElementTree.parse(path).getroot()  # noqa: S314 - what the usual script does
        for item in root.iter("object"):
            box = item.find("bndbox")
            assert box is not None
            edges = [int(box.findtext(edge, "")) for edge in EDGES]
            width, height = int(root.findtext("size/width", "")), int(root.findtext("size/height", ""))
            rows.append((root.findtext("filename"), width, height, item.findtext("name"), *edges))
    pandas.DataFrame(rows, columns=COLUMNS).to_csv(out, index=False)
    return time.perf_counter() - start


def csv_to_record(table: Path, images: Path, out: Path) -> float:
    """Writes a tf.train.Example for each image that the table names; returns the seconds it took."""
    import tensorflow

    start = time.perf_counter()
    by_image = pandas.read_csv(table).groupby("filename")
    with tensorflow.io.TFRecordWriter(str(out)) as writer:
        for filename in by_image.groups:
            example = _example(tensorflow, images, str(filename), by_image.get_group(filename))
            writer.write(example.SerializeToString())
    return time.perf_counter() - start


def _example(tensorflow: Any, images: Path, filename: str, rows: pandas.DataFrame) -> Any:
    """The Object Detection API's keys
    (https://github.com/tensorflow/models/blob/master/research/object_detection/g3doc/using_your_own_dataset.md)."""
    train = tensorflow.train
    with tensorflow.io.gfile.GFile(str(images / filename), "rb") as file:
        encoded = file.read()
    with Image.open(BytesIO(encoded)) as image:
        width, height = image.size
    edges: dict[str, list[float]] = {edge: [] for edge in EDGES}
    labels = []
    for _, row in rows.iterrows():
        for edge in EDGES:
            edges[edge].append(row[edge] / (width if edge[0] == "x" else height))
        labels.append(str(row["class"]).encode())

    def texts(values: list[bytes]) -> Any:
        return train.Feature(bytes_list=train.BytesList(value=values))

    def numbers(values: list[int]) -> Any:
        return train.Feature(int64_list=train.Int64List(value=values))

    return train.Example(features=train.Features(feature={
        "image/height": numbers([height]),
        "image/width": numbers([width]),
        "image/filename": texts([filename.encode()]),
        "image/source_id": texts([filename.encode()]),
        "image/encoded": texts([encoded]),
        "image/format": texts([b"jpeg"]),
        **{
            f"image/object/bbox/{edge}": train.Feature(float_list=train.FloatList(value=values))
            for edge, values in edges.items()
        },
        "image/object/class/text": texts(labels),
        "image/object/class/label": numbers([1] * len(labels)),
    }))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    scripts = parser.add_subparsers(dest="script", required=True)
    first = scripts.add_parser("xml_to_csv")
    first.add_argument("annotations", type=Path)
    first.add_argument("out", type=Path)
    second = scripts.add_parser("csv_to_record")
    second.add_argument("table", type=Path)
    second.add_argument("images", type=Path)
    second.add_argument("out", type=Path)
    given = parser.parse_args()
    if given.script == "xml_to_csv":
        print(xml_to_csv(given.annotations, given.out))
    else:
        print(csv_to_record(given.table, given.images, given.out))


if __name__ == "__main__":
    main()
