from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gcpod.data.build import DatasetRequest, build_dataset, check_dataset
from gcpod.data.model import SPLITS, Box
from gcpod.data.near import TOLERANCE, near_groups
from gcpod.data.pixels import GRID, fingerprint
from gcpod.errors import DataError

from .making import Dataset, drawn
from .test_conversions import encoded, pattern, recorded

SIZE = (128, 128)
CELLS = 3 * GRID**2
CAT = Box("cat", 5, 5, 60, 40)


def copies(data: bytes) -> dict[str, bytes]:
    """A photograph as programs and web pages encode it again."""
    with Image.open(BytesIO(data)) as image:
        photo = image.convert("RGB")
    half = photo.resize((photo.width // 2, photo.height // 2), Image.Resampling.LANCZOS)
    return {
        **{f"quality {quality}": encoded(photo, "JPEG", quality=quality) for quality in (30, 50, 75)},
        "png": encoded(photo, "PNG", compress_level=1), "half": encoded(half, "JPEG", quality=75),
    }


def test_copies_of_photographs_are_found_and_other_photographs_are_none(raccoon: Path) -> None:
    photos = sorted((raccoon / "images").glob("*.jpg"), key=lambda path: path.stat().st_size)[::10]
    assert len(photos) == 20
    prints: dict[str, bytes] = {}
    for number, path in enumerate(photos):
        data = path.read_bytes()
        prints[f"{number:02}"] = fingerprint(data, path)
        prints |= {f"{number:02} {kind}": fingerprint(copy, path) for kind, copy in copies(data).items()}
    assert near_groups(prints) == {name: name[:2] for name in prints}


def test_copies_of_copies_are_one_group() -> None:
    steps = {str(step): bytes([100 + TOLERANCE * step]) * CELLS for step in range(6)}
    assert set(near_groups(steps).values()) == {"0"}
    assert set(near_groups(dict(reversed(steps.items()))).values()) == {"0"}
    del steps["3"]
    assert near_groups(steps) == {"0": "0", "1": "0", "2": "0", "4": "4", "5": "4"}


def test_one_cell_of_one_colour_tells_pictures_apart() -> None:
    base = bytes([100]) * CELLS
    for cell in (0, 1, 2, CELLS - 1):
        within = base[:cell] + bytes([100 + TOLERANCE]) + base[cell + 1 :]
        beyond = base[:cell] + bytes([101 + TOLERANCE]) + base[cell + 1 :]
        assert near_groups({"a": base, "b": within}) == {"a": "a", "b": "a"}
        assert near_groups({"a": base, "b": beyond}) == {"a": "a", "b": "b"}


def by_comparing_all(prints: Mapping[str, bytes]) -> dict[str, str]:
    """The same groups, found by comparing each with each until nothing changes."""
    groups = {name: name for name in prints}
    changed = True
    while changed:
        changed = False
        for one, cells in prints.items():
            for other, others in prints.items():
                near = max(abs(a - b) for a, b in zip(cells, others, strict=True)) <= TOLERANCE
                if near and groups[one] < groups[other]:
                    groups[other], changed = groups[one], True
    return groups


DELTA = st.sampled_from([-2 * TOLERANCE, -TOLERANCE - 1, -TOLERANCE, 0, 1, TOLERANCE, TOLERANCE + 1, 2 * TOLERANCE])
CHANGES = st.tuples(DELTA, st.lists(st.tuples(st.integers(0, CELLS - 1), DELTA), max_size=2))


def changed(level: int, shift: int, cells: list[tuple[int, int]]) -> bytes:
    """A plain picture, all of it and some of its cells made brighter or darker."""
    values = [level + shift] * CELLS
    for cell, delta in cells:
        values[cell] += delta
    return bytes(min(max(value, 0), 255) for value in values)


@drawn(60, deadline=None)
@given(st.integers(0, 255), st.lists(CHANGES, max_size=7))
def test_groups_are_those_of_comparing_each_with_each(
    level: int, changes: list[tuple[int, list[tuple[int, int]]]],
) -> None:
    prints = {f"{index:02}": changed(level, *change) for index, change in enumerate(changes)}
    assert near_groups(prints) == by_comparing_all(prints)


def photo(seed: int) -> Image.Image:
    """A smooth picture that no other seed's is like."""
    return pattern(seed, (8, 8)).resize(SIZE, Image.Resampling.BICUBIC)


def straddling(folder: Path, request: DatasetRequest) -> int:
    """How many pictures have copies on both sides."""
    manifest = build_dataset(request)
    sides: defaultdict[str, set[str]] = defaultdict(set)
    for split in SPLITS:
        shards = tuple(shard for shard in manifest.shards if shard.split == split)
        for name in recorded(replace(manifest, shards=shards)):
            sides[name.partition("-")[0]].add(split)
    assert len(sides) == 5
    return sum(len(both) == 2 for both in sides.values())


def test_copies_never_straddle_the_split(tmp_path: Path) -> None:
    told = without = 0
    for number in range(10):
        folder = tmp_path / str(number)
        folder.mkdir()
        dataset = Dataset(folder)
        for seed in range(5 * number, 5 * number + 5):
            image = photo(seed)
            dataset.add(f"{seed}-a.jpg", CAT, data=encoded(image, "JPEG", quality=95), size=SIZE)
            dataset.add(f"{seed}-b.jpg", CAT, data=encoded(image, "JPEG", quality=40), size=SIZE)
            half = Box("cat", 2.5, 3, 30, 20)
            dataset.add(f"{seed}-c.png", half, data=encoded(image.resize((64, 64))), size=(64, 64))
        request = DatasetRequest(dataset.images, None, dataset.out, eval_fraction=0.5)
        told += straddling(folder, request)
        without += straddling(folder, replace(request, near_duplicates=False))
    assert told == 0
    assert without > 10


def test_what_moves_before_a_fixed_camera_makes_pictures_different(dataset: Dataset) -> None:
    for index in range(24):
        scene = photo(index % 2).convert("RGB")
        left, top = 5 * (index % 12), 9 * (index % 12)
        scene.paste((250, 250, 250), (left, top, left + 6, top + 6))
        folder = "test" if index % 12 in (0, 7) else "train"
        box = Box("fly", left, top, left + 6, top + 6)
        dataset.add(f"{folder}/{index}.png", box, data=encoded(scene), size=SIZE)
    manifest = build_dataset(DatasetRequest(dataset.images, None, dataset.out))
    assert (manifest.images, manifest.findings) == ({"train": 20, "eval": 4}, ())


def test_as_many_pictures_of_one_scene_as_a_camera_makes_are_grouped_in_no_time() -> None:
    prints = {f"{index:05}": bytes([100 + index % 3]) * CELLS for index in range(4000)}
    assert set(near_groups(prints).values()) == {"00000"}
    boxes = {name: ((int(name) % 40 / 50, 0.1, int(name) % 40 / 50 + 0.01, 0.2),) for name in prints}
    assert set(near_groups(prints, boxes).values()) == {"00000"}
    apart = {name: ((index % 2 / 2, 0.1, index % 2 / 2 + 0.1, 0.2),) for index, name in enumerate(prints)}
    assert set(near_groups(prints, apart).values()) == {"00000", "00001"}


def test_one_box_that_agrees_makes_a_copy_and_none_at_all_goes_along() -> None:
    prints = {name: bytes([100]) * CELLS for name in "abcde"} | {"z": bytes([200]) * CELLS}
    first, second, third = ((x, 0.1, x + 0.2, 0.4) for x in (0.1, 0.4, 0.7))
    boxes = {"a": (first, second), "b": (third, first), "c": (second,), "d": (third,), "z": (first,)}
    assert near_groups(prints, boxes) == {"a": "a", "b": "a", "c": "a", "d": "a", "e": "a", "z": "z"}
    del boxes["b"], prints["b"]
    assert near_groups(prints, boxes) == {"a": "a", "c": "a", "d": "d", "e": "a", "z": "z"}
    assert near_groups({"e": prints["e"], "d": prints["d"], "f": prints["e"]}, boxes) == {"d": "d", "e": "d", "f": "d"}


def test_copies_across_a_given_split_are_told(dataset: Dataset) -> None:
    for index in range(3):
        dataset.add(f"train/{index}.jpg", CAT, data=encoded(photo(index), "JPEG"), size=SIZE)
        dataset.add(f"test/{index}.jpg", CAT, data=encoded(photo(index + 9), "JPEG"), size=SIZE)
    dataset.add("test/copy.jpg", CAT, data=encoded(photo(1), "JPEG", quality=50), size=SIZE)
    request = DatasetRequest(dataset.images, None, dataset.out)
    [finding] = check_dataset(request).checked.findings
    assert (finding.code, finding.found) == (
        "D107", "the same picture is in train and eval: test/copy.jpg, train/1.jpg",
    )
    assert build_dataset(request).images == {"train": 2, "eval": 5}
    assert check_dataset(replace(request, near_duplicates=False)).checked.findings == ()


def broken(data: bytes) -> bytes:
    """A PNG whose chunks are whole and whose pixels are not."""
    at = data.index(b"IDAT") + 20
    return data[:at] + bytes(byte ^ 0xFF for byte in data[at : at + 20]) + data[at + 20 :]


@pytest.mark.parametrize(("options", "codes"), [
    ({"near_duplicates": False}, []),
    ({"near_duplicates": False, "verify": "decode"}, ["D106"]),
    ({"near_duplicates": True}, ["D106"]),
])
def test_pixels_are_decoded_only_where_it_is_asked_for(
    dataset: Dataset, options: dict[str, Any], codes: list[str],
) -> None:
    for index in range(3):
        dataset.add(f"{index}.png", CAT, data=encoded(photo(index)), size=SIZE)
    dataset.add("broken.png", CAT, data=broken(encoded(photo(7))), size=SIZE)
    request = DatasetRequest(dataset.images, None, dataset.out, **options)
    checked = check_dataset(request).checked
    assert [one.code for one in checked.errors] == codes
    assert [Path(one.where).name for one in checked.errors] == ["broken.png"] * len(codes)
    if codes:
        with pytest.raises(DataError, match="cannot be decoded"):
            build_dataset(request)
    else:
        assert "broken.png" in recorded(build_dataset(request))


def test_broken_pixels_that_were_not_looked_at_are_found_when_they_are_converted(dataset: Dataset) -> None:
    dataset.add("a.png", CAT, data=encoded(photo(1)), size=SIZE)
    dataset.add("broken.png", CAT, data=broken(encoded(photo(7))), size=SIZE)
    request = DatasetRequest(dataset.images, None, dataset.out, near_duplicates=False, max_side=64)
    with pytest.raises(DataError, match=r"D106: .*broken\.png.* cannot be decoded"):
        build_dataset(request)
    assert not list(dataset.out.glob("*.tfrecord"))
