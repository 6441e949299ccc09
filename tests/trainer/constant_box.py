"""Runs in the trainer's runtime: AP@0.50 of guessing the same box for every picture, by pycocotools.

Arguments: the training records and the evaluation records. The guess is, for each class, the mean of its training
boxes, scored by how common the class is; it prints the AP as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

SIDE = 1000.0
"""Boxes are compared on a canvas of this many pixels, so that no object counts as small."""


def read(path: str) -> Iterator[tuple[Any, list[int]]]:
    for payload in tf.data.TFRecordDataset(path):
        features = tf.train.Example.FromString(payload.numpy()).features.feature
        edges = [features[f"image/object/bbox/{edge}"].float_list.value for edge in ("xmin", "ymin", "xmax", "ymax")]
        yield np.array(edges).T * SIDE, list(features["image/object/class/label"].int64_list.value)


def corner_and_size(box: Any) -> list[float]:
    return [float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])]


def main(train: str, evaluation: str) -> None:
    boxes: list[Any] = []
    labels: list[int] = []
    for image_boxes, image_labels in read(train):
        boxes += list(image_boxes)
        labels += image_labels
    classes = sorted(set(labels))
    guess = {c: np.mean([b for b, label in zip(boxes, labels, strict=True) if label == c], axis=0) for c in classes}
    truth: list[dict[str, Any]] = []
    guesses: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    for number, (image_boxes, image_labels) in enumerate(read(evaluation), 1):
        images.append({"id": number, "width": SIDE, "height": SIDE})
        for box, label in zip(image_boxes, image_labels, strict=True):
            size = corner_and_size(box)
            truth.append({"id": len(truth) + 1, "image_id": number, "category_id": label, "bbox": size,
                          "area": size[2] * size[3], "iscrowd": 0})
        guesses += [{"image_id": number, "category_id": c, "bbox": corner_and_size(guess[c]),
                     "score": labels.count(c) / len(labels)} for c in classes]
    coco = COCO()
    coco.dataset = {"images": images, "annotations": truth, "categories": [{"id": c, "name": str(c)} for c in classes]}
    coco.createIndex()
    score = COCOeval(coco, coco.loadRes(guesses), "bbox")
    score.evaluate()
    score.accumulate()
    score.summarize()
    sys.stdout.write("\n" + json.dumps({"ap50": float(score.stats[1])}) + "\n")


main(*sys.argv[1:])
