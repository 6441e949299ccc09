"""Which checkpoints are whole."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gcpod.results.checkpoints import whole_checkpoints


def files(number: int, shards: int = 1) -> list[str]:
    return [f"m/ckpt-{number}.index", *(f"m/ckpt-{number}.data-{one:05}-of-{shards:05}" for one in range(shards))]


def test_whole_ones_come_in_the_order_of_their_numbers() -> None:
    assert whole_checkpoints([*files(10, 3), *files(9), "m/checkpoint", "m/train/events.out.tfevents.1"]) == [
        "ckpt-9", "ckpt-10"]


def test_one_that_lacks_a_file_is_none() -> None:
    for missing in range(3):
        listed = files(2, 2)
        del listed[missing]
        assert whole_checkpoints([*listed, *files(1)]) == ["ckpt-1"]
    assert whole_checkpoints(["ckpt-3.index", "ckpt-3.data-00000-of-00001", "ckpt-3.data-00000-of-00002"]) == []


@given(st.lists(st.text() | st.from_regex(r"(a/)?ckpt-[0-9]{1,3}\.(index|data-0000[01]-of-0000[12])", fullmatch=True)))
def test_any_names(names: list[str]) -> None:
    found = whole_checkpoints(names)
    assert found == sorted(found, key=lambda name: int(name.removeprefix("ckpt-")))
    assert all(any(name.endswith(f"{one}.index") for name in names) for one in found)
