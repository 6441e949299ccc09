from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gcpod.cli.main import main
from gcpod.data.inspect import inspect_dataset
from gcpod.data.model import Box
from gcpod.errors import DataError

from .making import Dataset
from .test_scan_formats import SIDES, TRUTH, Laid, layouts, put, tutorial, voc_beside, yolo_by_kind

COUNTS = Counter(box.label for boxes in TRUTH.values() for box in boxes)


@pytest.fixture
def inspect(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Calls ``gcpod dataset inspect`` in this process: exit code, output, errors."""
    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main(["dataset", "inspect", *map(str, arguments)])
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return call


def arguments(laid: Laid) -> list[object]:
    return [laid.images, *(["--annotations", laid.annotations] if laid.annotations else [])]


@layouts
def test_the_numbers_of_each_format(lay: Callable[[Path], Laid], tmp_path: Path) -> None:
    laid = lay(tmp_path)
    found = inspect_dataset(laid.images, laid.annotations)
    assert found.format == laid.format
    assert (found.images, found.annotated) == (len(TRUTH), len(TRUTH))
    assert found.boxes == COUNTS
    assert found.given == (Counter(SIDES.values()) if laid.split else {"": len(TRUTH)})
    assert found.label_map in ({}, laid.ids)
    assert found.findings == ()


@layouts
def test_the_command_says_the_same(
    lay: Callable[[Path], Laid], tmp_path: Path, inspect: Callable[..., tuple[int, str, str]],
) -> None:
    laid = lay(tmp_path)
    code, out, err = inspect(*arguments(laid))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].endswith(f": {laid.format}")
    assert "images:   4, 4 annotated" in lines
    assert ("split:    2 eval, 2 train" if laid.split else "split:    none given") in lines
    assert "boxes:    6 of 2 classes" in lines
    code, out, err = inspect(*arguments(laid), "--json")
    content: dict[str, Any] = json.loads(out)
    assert (code, err) == (0, "")
    assert (content["format"], content["images"], content["boxes"]) == (laid.format, 4, COUNTS)
    assert content["label_map"] in ({}, laid.ids)


def test_ids_are_shown_where_the_format_has_them(tmp_path: Path, inspect: Callable[..., tuple[int, str, str]]) -> None:
    laid = yolo_by_kind(tmp_path)
    put(tmp_path / "data.yaml", "names: [dog, cat, emu]\n")
    _, out, _ = inspect(laid.images)
    assert out.splitlines()[-2:] == ["         3 cat (id 2)", "         3 dog (id 1)"]
    assert inspect_dataset(laid.images).label_map == {"dog": 1, "cat": 2, "emu": 3}


def test_labels_come_with_the_most_frequent_first(dataset: Dataset) -> None:
    dataset.add("a.jpg", *[Box(label, 1, 1, 9, 9) for label in ("rare", "often", "often", "b", "a")])
    dataset.image("alone.jpg")
    found = inspect_dataset(dataset.images)
    assert list(found.boxes.items()) == [("often", 2), ("a", 1), ("b", 1), ("rare", 1)]
    assert (found.images, found.annotated) == (2, 1)


def test_other_formats_that_lie_there_are_named(tmp_path: Path, inspect: Callable[..., tuple[int, str, str]]) -> None:
    voc_beside(tmp_path)
    tutorial(tmp_path)
    assert inspect_dataset(tmp_path).also == ("CSV table",)
    _, out, _ = inspect(tmp_path)
    assert "also there: CSV table (--format chooses)" in out.splitlines()
    _, out, _ = inspect(tmp_path, "--format", "csv")
    assert out.splitlines()[:2] == [f"{tmp_path}: CSV table", "also there: Pascal VOC XML (--format chooses)"]


def test_images_are_not_opened_and_faults_of_the_labels_are_shown(
    dataset: Dataset, inspect: Callable[..., tuple[int, str, str]],
) -> None:
    dataset.add("a.jpg", Box("cat", 1, 1, 9, 9), data=b"no image at all")
    dataset.image("b.jpg", b"")
    (dataset.images / "b.xml").write_bytes(b"<annotation>")
    code, out, _ = inspect(dataset.images)
    assert code == 0
    assert "images:   2, 1 annotated" in out
    [shown] = [line for line in out.splitlines() if "D104" in line]
    assert shown.startswith(f"error: D104 {dataset.images / 'b.xml'}:1: ")
    [finding] = inspect_dataset(dataset.images).findings
    assert (finding.code, finding.severity) == ("D104", "error")


def test_what_is_no_dataset(tmp_path: Path, inspect: Callable[..., tuple[int, str, str]]) -> None:
    put(tmp_path / "a.txt", "hello")
    code, out, err = inspect(tmp_path)
    assert (code, out, err.count("\n")) == (DataError.exit_code, "", 1)
    assert "no labels in a format known here" in err
    assert inspect(tmp_path / "none")[0] == DataError.exit_code
    assert "nothing of the format coco" in inspect(tmp_path, "--format", "coco")[2]


def test_in_a_process_of_its_own(tmp_path: Path) -> None:
    laid = yolo_by_kind(tmp_path)
    command = [sys.executable, "-m", "gcpod", "dataset", "inspect", str(laid.images), "--json"]
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert json.loads(result.stdout)["boxes"] == {"cat": 3, "dog": 3}
    assert json.loads(result.stdout)["place"] == str(tmp_path)
