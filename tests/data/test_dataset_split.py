from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpod.data.split import Split, given_split, plan_split
from gcpod.errors import SpecError

DIGESTS = st.binary(min_size=1, max_size=3).map(lambda data: hashlib.sha256(data).hexdigest())


def by_hash(digests: list[str], fraction: float = 0.1) -> dict[str, Split]:
    return dict(zip(digests, plan_split([(one, None) for one in digests], fraction), strict=True))


def many(count: int) -> list[str]:
    return [hashlib.sha256(str(index).encode()).hexdigest() for index in range(count)]


def test_the_fraction_is_about_kept() -> None:
    for fraction in (0.1, 0.2, 0.5):
        share = list(by_hash(many(4000), fraction).values()).count("eval") / 4000
        assert abs(share - fraction) < 0.03


@given(DIGESTS)
def test_adding_one_image_moves_no_other(added: str) -> None:
    before = by_hash(many(60))
    after = by_hash([*many(60), added])
    assert {digest: after[digest] for digest in before} == before


@given(st.lists(st.tuples(DIGESTS, st.sampled_from(["train", "eval", None])), max_size=12), st.floats(0.01, 0.99))
def test_identical_images_never_straddle_and_no_side_is_empty(
    images: list[tuple[str, Split | None]], fraction: float,
) -> None:
    sides = plan_split(images, fraction)
    assert len(sides) == len(images)
    pairs = {(digest, side) for (digest, _), side in zip(images, sides, strict=True)}
    distinct = {digest for digest, _ in images}
    assert len(pairs) == len(distinct)
    if len(distinct) > 1:
        assert {side for _, side in pairs} == {"train", "eval"}
    elif distinct:
        assert set(sides) == {"train"}


def test_a_given_split_is_kept_and_a_picture_in_both_sides_evaluates() -> None:
    a, b, c, *_ = many(3)
    assert plan_split([(a, "train"), (b, "eval"), (c, "train"), (b, "train")]) == ("train", "eval", "train", "eval")


def test_one_side_alone_is_no_given_split() -> None:
    digests = many(50)
    assert plan_split([(one, "train") for one in digests]) == tuple(by_hash(digests).values())


def test_folders() -> None:
    names = ["train/a.jpg", "Test/x/a.jpg", "val/a.jpg", "eval/a.jpg", "other/train/a.jpg", "train.jpg"]
    assert [given_split(name) for name in names] == ["train", "eval", "eval", "eval", None, None]


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_a_fraction_out_of_range(fraction: float) -> None:
    with pytest.raises(SpecError, match="eval fraction"):
        plan_split([], fraction)
