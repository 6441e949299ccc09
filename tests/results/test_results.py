"""Event files read without TensorFlow, mirrored with only their new bytes, and turned into metrics."""

from __future__ import annotations

import contextlib
import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpod import wire
from gcpod.errors import DataError, GcpodError
from gcpod.localcloud.server import LocalCloud
from gcpod.results.events import Scalar, event_scalars, read_scalars
from gcpod.results.metrics import read_metrics, to_metrics
from gcpod.results.report import RunResult, write_result
from gcpod.results.tensorboard import fetch_tensorboard
from gcpod.session import Session
from gcpod.settings import resolve
from gcpod.spec import Spec
from gcpod.storage.mirror import Mirrored
from gcpod.storage.objects import Objects
from gcpod.uris import GcsUri
from tests.quick_trainer import scalar_event
from tests.wiring import fixed32, fixed64

EVENTS = GcsUri("bench", "runs/r/model")


def payload(step: int, tag: str, tensor: bytes) -> bytes:
    value = wire.delimited(1, tag.encode()) + wire.delimited(8, tensor)
    return wire.integer(2, step) + wire.delimited(5, wire.delimited(1, value))


def test_scalars_of_every_form_are_read() -> None:
    simple = wire.integer(2, 7) + wire.delimited(5, wire.delimited(1, wire.delimited(1, b"a") + fixed32(2, 0.5)))
    packed = payload(8, "b", wire.integer(1, 1) + wire.packed_floats(5, [0.25]))
    content = payload(9, "c", wire.integer(1, 1) + wire.delimited(4, struct.pack("<f", 2.0)))
    double = payload(10, "d", wire.integer(1, 2) + wire.delimited(4, struct.pack("<d", 4.0)))
    found = [scalar for event in (simple, packed, content, double) for scalar in event_scalars(event)]
    assert found == [Scalar(7, "a", 0.5), Scalar(8, "b", 0.25), Scalar(9, "c", 2.0), Scalar(10, "d", 4.0)]


def test_images_texts_and_empty_tensors_are_passed_over() -> None:
    image = payload(1, "picture", wire.integer(1, 7) + wire.delimited(8, b"png"))
    assert list(event_scalars(image)) == []
    assert list(event_scalars(payload(1, "none", b""))) == []
    assert list(event_scalars(fixed64(1, 1.0) + wire.delimited(3, b"brain.Event:2"))) == []


def test_a_file_that_still_grows_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "events.out.tfevents.1"
    path.write_bytes(scalar_event(1, "a", 1.0) + scalar_event(2, "a", 2.0)[:-3])
    assert list(read_scalars(path)) == [Scalar(1, "a", 1.0)]


def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "events.out.tfevents.1"
    whole = bytearray(scalar_event(1, "a", 1.0))
    whole[20] ^= 255
    path.write_bytes(bytes(whole))
    with pytest.raises(DataError, match=r"events\.out\.tfevents\.1"):
        list(read_scalars(path))


@given(st.binary(max_size=200))
def test_any_bytes_give_scalars_or_a_coded_error(data: bytes) -> None:
    found: list[Scalar] = []
    with contextlib.suppress(GcpodError):
        found = list(event_scalars(data))
    assert all(isinstance(scalar, Scalar) for scalar in found)


def test_metrics_are_gathered_by_step() -> None:
    scalars = [
        Scalar(100, "DetectionBoxes_Precision/mAP", 0.25), Scalar(0, "DetectionBoxes_Precision/mAP", 0.0),
        Scalar(100, "DetectionBoxes_Precision/mAP@.50IOU", 0.5), Scalar(100, "learning_rate", 0.1),
        Scalar(200, "Loss/total_loss", 1.0),
    ]
    untrained, trained = to_metrics(scalars)
    assert (untrained.step, untrained.ap, math.isnan(untrained.ap50)) == (0, 0.0, True)
    assert (trained.step, trained.ap, trained.ap50) == (100, 0.25, 0.5)
    assert "learning_rate" not in trained.values


def test_a_result_is_json_and_a_table(tmp_path: Path) -> None:
    metrics = tuple(to_metrics([Scalar(s, "DetectionBoxes_Precision/mAP", s / 100) for s in (0, 50)]))
    result = RunResult("r", "gs://b/r", "gs://b/r/export/saved_model", tmp_path, {"train": "n"}, metrics)
    write_result(result, tmp_path / "deep" / "result.json")
    read = json.loads((tmp_path / "deep" / "result.json").read_text())
    assert read["final"]["ap"] == 0.5
    assert read["jobs"] == {"train": "n"}
    assert list(result.frame()["AP"]) == [0.0, 0.5]
    assert list(result.frame().index) == [0, 50]


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Objects]:
    with LocalCloud(tmp_path_factory.mktemp("cloud")) as cloud:
        session = Session(resolve(Spec(), endpoint=cloud.url, environ={}, home=Path()))
        made = Objects(session)
        made.ensure_bucket("bench")
        yield made
        session.storage.close()


def test_only_new_bytes_travel(objects: Objects, tmp_path: Path) -> None:
    name = EVENTS / "eval" / "events.out.tfevents.1"
    first, second = scalar_event(1, "DetectionBoxes_Precision/mAP", 0.5), scalar_event(2, "x", 1.0)
    objects.write(name, first)
    objects.write(EVENTS / "checkpoint", b"no event file")
    assert fetch_tensorboard(objects, EVENTS, tmp_path) == Mirrored(1, len(first))
    assert fetch_tensorboard(objects, EVENTS, tmp_path) == Mirrored(0, 0)
    objects.write(name, first + second)
    assert fetch_tensorboard(objects, EVENTS, tmp_path) == Mirrored(1, len(second))
    assert (tmp_path / "eval" / "events.out.tfevents.1").read_bytes() == first + second
    assert [m.ap for m in read_metrics(tmp_path)] == [0.5]
    assert not list(tmp_path.rglob("*.part"))


def test_a_file_that_was_replaced_or_spoilt_is_fetched_anew(objects: Objects, tmp_path: Path) -> None:
    model = GcsUri("bench", "runs/other/model")
    name = model / "train" / "events.out.tfevents.9"
    objects.write(name, b"a" * 50)
    fetch_tensorboard(objects, model, tmp_path)
    objects.write(name, b"b" * 80)
    # 30 bytes that do not fit behind those that are there, then all of them.
    assert fetch_tensorboard(objects, model, tmp_path).bytes == 30 + 80
    (tmp_path / "train" / "events.out.tfevents.9").write_bytes(b"c" * 80)
    assert fetch_tensorboard(objects, model, tmp_path).bytes == 80
    assert (tmp_path / "train" / "events.out.tfevents.9").read_bytes() == b"b" * 80


def test_names_cannot_leave_the_folder(objects: Objects, tmp_path: Path) -> None:
    model = GcsUri("bench", "runs/evil/model")
    objects.write(model / "../../../events.out.tfevents.1", b"x")
    with pytest.raises(GcpodError, match="leads outside"):
        fetch_tensorboard(objects, model, tmp_path / "logs")
    assert not list(tmp_path.rglob("events*"))
