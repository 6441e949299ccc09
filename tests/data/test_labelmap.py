from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpod.data.labelmap import LabelItem, LabelMap, parse_pbtxt, read_pbtxt, render_pbtxt
from gcpod.errors import DataError

from .making import outcome

PATH = Path("map.pbtxt")
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)


@given(st.lists(NAMES, min_size=1, max_size=6, unique=True), st.data())
def test_maps_come_back(names: list[str], data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(1, (1 << 31) - 1), min_size=len(names), max_size=len(names), unique=True))
    displayed = st.one_of(st.just(""), NAMES)
    known = LabelMap(tuple(LabelItem(one, name, data.draw(displayed)) for one, name in zip(ids, names, strict=True)))
    assert parse_pbtxt(render_pbtxt(known), PATH) == known


def test_rendering() -> None:
    text = render_pbtxt(LabelMap.impose(["it's", "b\\c\n"]))
    assert text == "item {\n  id: 1\n  name: 'it\\'s'\n}\n\nitem {\n  id: 2\n  name: 'b\\\\c\\n'\n}\n"


def test_a_derived_map_does_not_depend_on_the_order_of_the_data() -> None:
    assert LabelMap.derive(["dog", "Cat", "ape", "dog"]) == LabelMap.derive(["ape", "dog", "Cat"])
    assert LabelMap.derive(["dog", "ape"]).ids() == {"ape": 1, "dog": 2}
    assert LabelMap.impose(["dog", "ape"]).ids() == {"dog": 1, "ape": 2}


def test_hand_written_files() -> None:
    known = parse_pbtxt(
        '\ufeff# classes\nitem{id:2,name:"b\\x21" "c"}item :<\n name:\'a\' ; id: 1 # one\n display_name: "\\303\\251"\n'
        "frequency: RARE keypoints { id: 1 label: 'nose' } ancestor_ids: ['x', \"y\"] >".removeprefix("\ufeff"),
        PATH,
    )
    assert known.items == (LabelItem(1, "a", "é"), LabelItem(2, "b!c"))


@pytest.mark.parametrize(("name", "items", "classes", "first"), [
    ("mscoco", 80, 90, LabelItem(1, "/m/01g317", "person")),
    ("oid_v4", 601, 601, LabelItem(1, "/m/011k07", "Tortoise")),
    ("pascal", 20, 20, LabelItem(1, "aeroplane")),
])
def test_the_object_detection_apis_own_maps(
    shared_data: Path, name: str, items: int, classes: int, first: LabelItem,
) -> None:
    known = read_pbtxt(shared_data / "label-maps" / f"{name}_label_map.pbtxt")
    assert (len(known.items), known.num_classes, known.items[0]) == (items, classes, first)
    assert known.contiguous == (items == classes)


def test_labels_are_found_by_display_name_too_and_the_nearest_is_named() -> None:
    known = LabelMap((LabelItem(1, "/m/1", "Person"), LabelItem(2, "raccoon")))
    assert known.ids() == {"/m/1": 1, "Person": 1, "raccoon": 2}
    assert (known.nearest("racoon"), known.nearest("PERSON"), known.nearest("zebra")) == ("raccoon", "Person", None)


@pytest.mark.parametrize(("text", "found"), [
    ("", "holds no item"),
    ("item { id: 1 name: 'a' }\nitem { id: 1 name: 'b' }", ":2:1: 1 is already taken"),
    ("item { id: 1 name: 'a' }\n\nitem { id: 2 name: 'a' }", ":3:1: 'a' is already taken"),
    ("item { id: 0 name: 'a' }", ":1:1: id 0 is used twice or outside 1"),
    ("item { id: 99999999999 name: 'a' }", "no whole number as id"),
    ("item { id: -1 name: 'a' }", "no whole number as id"),
    ("item { name: 'a' }", "no whole number as id"),
    ("item { id: 1 }", "'' is empty"),
    ("item { id: 1 id: 2 name: 'a' }", "id stands twice"),
    ("item { id: 1\n name: a }", "a name is not in quotes"),
    ("item { id: 1 name: '\\377' }", "not UTF-8"),
    ("item { id: 1 name: 'a' ", "end of the file"),
    ("item { id: 1\n name 'a' }", ":2:7: found \"'a'\"; write ':' and a value"),
    ("item {\n id: 1\n name: 'a }", ":3:8: found a quote that is not closed"),
    ("item { id: 1 name: '\\q' }", "escape"),
    ("item { id: 1 name: '\\UFFFFFFFF' }", "found the escape"),
    ("items { id: 1 name: 'a' }", "'items' is no item"),
    ("item { id: 1 name: 'a' } }", "found '}'"),
    ("item " + "{ x " * 150, "nested deeper than 100"),
])
def test_faulty_maps_name_file_and_line(text: str, found: str) -> None:
    with pytest.raises(DataError, match=found) as caught:
        parse_pbtxt(text, PATH)
    assert caught.value.code == "D101"


def test_faulty_lists_and_files(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"item { id: 1 name: '\xe9' }")
    calls: list[Callable[[], LabelMap]] = [
        lambda: LabelMap(()), lambda: LabelMap.impose(["a", "a"]), lambda: LabelMap.impose([""]),
        lambda: read_pbtxt(tmp_path / "none"), lambda: read_pbtxt(tmp_path / "latin"),
    ]
    assert [outcome(call) for call in calls] == ["D101"] * 5


PIECES = st.sampled_from(["item", *"{}<>[]:12\\#\n ,", "id", "name", "'a'", '"b'])


@given(st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=40).map(lambda pieces: " ".join(pieces))))
def test_any_text_parses_or_fails_with_a_code(text: str) -> None:
    assert outcome(lambda: parse_pbtxt(text, PATH)) in ("", "D101")
