from __future__ import annotations

from pathlib import Path

import pytest
from gcpod_launcher.checkpoints import index_text, mend, named_by, parts, split
from hypothesis import given
from hypothesis import strategies as st

from .folder import Folder, save


def test_whole_is_what_has_its_index_and_every_shard() -> None:
    assert parts([
        "checkpoint", "train/", "ckpt-10.index", "ckpt-10.data-00000-of-00001", "ckpt-9.data-00001-of-00002",
        "ckpt-9.index", "ckpt-9.data-00000-of-00002", "ckpt-11.index", "ckpt-11.data-00000-of-00002",
        "ckpt-12.data-00000-of-00001", "ckpt-13.index", "ckpt-14.index", "ckpt-14.data-00000-of-00000",
    ]) == {
        "ckpt-9": ["ckpt-9.data-00000-of-00002", "ckpt-9.data-00001-of-00002", "ckpt-9.index"],
        "ckpt-10": ["ckpt-10.data-00000-of-00001", "ckpt-10.index"],
    }


@given(st.lists(st.one_of(st.text(max_size=20), st.from_regex(r"ckpt-\d{1,3}\.(index|data-0000\d-of-0000\d)"))))
def test_whatever_lies_in_a_folder_only_whole_checkpoints_come_of_it(names: list[str]) -> None:
    found = parts(names)
    assert {file for files in found.values() for file in files} <= set(names)
    assert all(files[-1] == f"{name}.index" and len(files) > 1 for name, files in found.items())


@given(st.lists(st.from_regex(r"[a-z.-]{1,9}\d", fullmatch=True), min_size=1, max_size=5))
def test_the_index_names_its_last(names: list[str]) -> None:
    assert named_by(index_text(names)) == names[-1]


@given(st.text(max_size=200))
def test_an_index_is_never_more_than_unreadable(text: str) -> None:
    found = named_by(text)
    assert found is None or found in text


@pytest.mark.parametrize(("prefix", "expected"), [
    ("gs://b/model/ckpt-3", ("gs://b/model", "ckpt-3")), ("/x/ckpt-1", ("/x", "ckpt-1")), ("ckpt-1", (".", "ckpt-1")),
])
def test_a_prefix_is_a_folder_and_a_name(prefix: str, expected: tuple[str, str]) -> None:
    assert split(prefix) == expected


def mended(folder: Path) -> tuple[str | None, list[str]]:
    said: list[str] = []
    mend(Folder(), f"{folder}/", said.append)
    return Folder().read(f"{folder}/checkpoint"), said


def test_a_whole_checkpoint_stays_the_newest(tmp_path: Path) -> None:
    for number in (1, 2):
        save(tmp_path, f"ckpt-{number}")
    # What the index names counts, even where another is newer: its index was not written yet.
    (tmp_path / "checkpoint").write_text(index_text(["ckpt-1"]))
    assert mended(tmp_path) == (index_text(["ckpt-1"]), [])


@pytest.mark.parametrize("lost", ["ckpt-10.index", "ckpt-10.data-00001-of-00002"])
@pytest.mark.parametrize("absolute", [False, True])
def test_a_lost_part_takes_the_index_back_to_the_newest_whole_one(tmp_path: Path, lost: str, absolute: bool) -> None:
    for number in (8, 9, 10):
        save(tmp_path, f"ckpt-{number}", shards=2)
    (tmp_path / "checkpoint").write_text(index_text([f"{tmp_path}/ckpt-10" if absolute else "ckpt-10"]))
    (tmp_path / lost).unlink()
    text, [said] = mended(tmp_path)
    assert text == index_text(["ckpt-8", "ckpt-9"])
    assert said == f"reading {tmp_path}/checkpoint: ckpt-10 is not whole; the training goes on from ckpt-9"


@pytest.mark.parametrize("text", ["", "\0\0", 'model_checkpoint_path: "unfinished', "model_checkpoint_path: 5"])
def test_an_index_that_cannot_be_read_is_written_anew(tmp_path: Path, text: str) -> None:
    save(tmp_path, "ckpt-1")
    (tmp_path / "checkpoint").write_text(text)
    assert mended(tmp_path)[0] == index_text(["ckpt-1"])


def test_without_any_whole_one_the_training_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_text(index_text(["ckpt-1"]))
    text, [said] = mended(tmp_path)
    assert text is None
    assert "begins anew" in said


def test_a_folder_without_an_index_and_one_that_names_another_folder_are_left(tmp_path: Path) -> None:
    assert mended(tmp_path) == (None, [])
    (tmp_path / "checkpoint").write_text(index_text(["/elsewhere/ckpt-1"]))
    assert mended(tmp_path) == (index_text(["/elsewhere/ckpt-1"]), [])
