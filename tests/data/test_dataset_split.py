from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpod.data.model import Split, side_in, side_of
from gcpod.data.split import Picture, plan_split
from gcpod.errors import SpecError

DIGESTS = st.binary(min_size=1, max_size=3).map(lambda data: hashlib.sha256(data).hexdigest())


def by_hash(digests: list[str], fraction: float = 0.1) -> dict[str, Split]:
    return dict(zip(digests, plan_split([Picture(one) for one in digests], fraction), strict=True))


def many(count: int) -> list[str]:
    return [hashlib.sha256(str(index).encode()).hexdigest() for index in range(count)]


def classed(counts: dict[str, int]) -> list[Picture]:
    """So many pictures of each class."""
    labels = [label for label, count in counts.items() for _ in range(count)]
    return [Picture(digest, labels=frozenset({label})) for digest, label in zip(many(len(labels)), labels, strict=True)]


def evaluated(pictures: list[Picture], fraction: float) -> Counter[str]:
    sides = plan_split(pictures, fraction)
    return Counter(
        label for picture, side in zip(pictures, sides, strict=True) if side == "eval" for label in picture.labels
    )


def test_the_fraction_is_about_kept() -> None:
    for fraction in (0.1, 0.2, 0.5):
        share = list(by_hash(many(4000), fraction).values()).count("eval") / 4000
        assert abs(share - fraction) < 0.03


@given(DIGESTS)
def test_adding_one_image_moves_no_other(added: str) -> None:
    before = by_hash(many(60))
    after = by_hash([*many(60), added])
    assert {digest: after[digest] for digest in before} == before


def test_a_growing_dataset_of_many_classes_hardly_ever_moves_an_image() -> None:
    pictures = classed({"cat": 300, "dog": 90, "cow": 41, "emu": 20, "gnu": 5})
    sides = plan_split(pictures)
    moved = 0
    for index in range(200):
        digest = hashlib.sha256(f"new {index}".encode()).hexdigest()
        pictures.append(Picture(digest, labels=frozenset({("cat", "dog", "emu", "gnu")[index % 4]})))
        after = plan_split(pictures)
        moved += sum(one != other for one, other in zip(sides, after, strict=False))
        sides = after
    assert moved <= 10


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.35, 0.8])
def test_each_class_is_split_about_alike(fraction: float) -> None:
    counts = {"cat": 1000, "dog": 200, "cow": 50, "emu": 20, "gnu": 7, "yak": 2, "auk": 1}
    found = evaluated(classed(counts), fraction)
    for label, count in counts.items():
        if count > 1:
            assert max(1, int(fraction / 2 * count)) <= found[label] <= min(count - 1, 2 * fraction * count + 1)


def test_a_rare_class_beside_a_common_one_in_each_picture() -> None:
    pictures = [replace(one, labels=one.labels | {"person"}) for one in classed({"cat": 200, "emu": 3, "gnu": 2})]
    found = evaluated(pictures, 0.1)
    assert found["emu"] in (1, 2)
    assert found["gnu"] == 1
    assert 10 <= found["person"] <= 42


GROUPS = st.lists(
    st.tuples(DIGESTS, st.sampled_from(["train", "eval", None]), st.frozensets(st.sampled_from("abc"), max_size=2)),
    max_size=12,
)


@given(GROUPS, st.floats(0.01, 0.99))
def test_copies_never_straddle_and_no_side_is_empty(
    images: list[tuple[str, Split | None, frozenset[str]]], fraction: float,
) -> None:
    pictures = [Picture(*image) for image in images]
    sides = plan_split(pictures, fraction)
    assert len(sides) == len(images)
    pairs = {(picture.group, side) for picture, side in zip(pictures, sides, strict=True)}
    distinct = {picture.group for picture in pictures}
    assert len(pairs) == len(distinct)
    if len(distinct) > 1 and {picture.given for picture in pictures} >= {"train", "eval"}:
        for picture, side in zip(pictures, sides, strict=True):
            assert picture.given != "eval" or side == "eval"
    elif len(distinct) > 1:
        assert {side for _, side in pairs} == {"train", "eval"}
    elif distinct:
        assert set(sides) == {"train"}


@given(GROUPS, st.randoms())
def test_the_order_does_not_matter(images: list[tuple[str, Split | None, frozenset[str]]], random: Random) -> None:
    pictures = [Picture(*image) for image in images]
    mixed = list(pictures)
    random.shuffle(mixed)
    sides = dict(zip((one.group for one in pictures), plan_split(pictures), strict=True))
    assert sides == dict(zip((one.group for one in mixed), plan_split(mixed), strict=True))


def test_a_given_split_is_kept_and_a_picture_in_both_sides_evaluates() -> None:
    a, b, c, *_ = many(3)
    given: list[tuple[str, Split]] = [(a, "train"), (b, "eval"), (c, "train"), (b, "train")]
    assert plan_split([Picture(*one) for one in given]) == ("train", "eval", "train", "eval")


def test_one_side_alone_is_no_given_split() -> None:
    digests = many(50)
    assert plan_split([Picture(one, "train") for one in digests]) == tuple(by_hash(digests).values())


def test_words_that_name_a_side() -> None:
    words = ["train", "Test", "val", "eval", "valid", "train2017", "other", "images"]
    assert [side_of(word) for word in words] == ["train", "eval", "eval", "eval", "eval", "train", None, None]
    stems = ["train_labels", "instances_val2017", "validation-annotations-bbox", "raccoon_labels", "train_and_test"]
    assert [side_in(stem) for stem in stems] == ["train", "eval", "eval", None, None]


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_a_fraction_out_of_range(fraction: float) -> None:
    with pytest.raises(SpecError, match="eval fraction"):
        plan_split([], fraction)


def test_a_copy_that_no_side_names_goes_with_one_that_a_side_names() -> None:
    for digest in many(40):
        pictures = [Picture(digest, "train"), Picture(digest), Picture("a" * 64, "eval")]
        assert plan_split(pictures) == ("train", "train", "eval")


def test_pictures_with_copies_evaluate_no_more_often_than_others() -> None:
    digests = many(4000)
    lowest = [min(digests[start : start + 10]) for start in range(0, 4000, 10)]
    share = plan_split([Picture(one) for one in lowest]).count("eval") / len(lowest)
    assert 0.06 < share < 0.14
