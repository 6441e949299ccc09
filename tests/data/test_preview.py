from __future__ import annotations

import base64
import hashlib
import re
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gcpod.data.build import CheckedDataset, DatasetRequest, check_dataset
from gcpod.data.checked import Checked
from gcpod.data.labelmap import LabelMap
from gcpod.data.model import SPLITS, Box, ImageSource
from gcpod.data.plan import DatasetPlan, plan_dataset
from gcpod.data.preview.contact_sheet import MAX_DRAWN, Drawn, Tile
from gcpod.data.preview.page import (
    MAX_SHOWN,
    Preview,
    build_preview,
    group_findings,
    render_preview,
    view_dataset,
)
from gcpod.errors import DataError, SpecError
from gcpod.spec import Policies
from gcpod.status import Finding

from .making import Dataset, drawn, picture

GOOD = Box("cat", 10, 10, 50, 40)
EVIL = "<script>alert(1)</script>"


def planned(request: DatasetRequest) -> tuple[CheckedDataset, DatasetPlan | None]:
    found = check_dataset(request)
    if found.checked.errors:
        return found, None
    return found, plan_dataset(found.checked.samples, found.label_map, request.plan_options)


def viewed(dataset: Dataset, sheet: int = 60, policies: Policies | None = None) -> Preview:
    request = DatasetRequest(dataset.images, None, dataset.out, policies=policies or Policies())
    return view_dataset(*planned(request), "A title", sheet)


def tile(view: Preview, name: str) -> Tile:
    [found] = [one for one in view.tiles if one.name == name]
    return found


def opened(uri: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))))


def shape(uri: str) -> tuple[int, int]:
    size: tuple[int, int] = opened(uri).size
    return size


class Tags(HTMLParser):
    """The tags of a page in their order, with the attributes that may make a browser act, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.values: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.values += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.values.append(data)


@pytest.mark.long
def test_real_photographs(raccoon: Path, tmp_path: Path) -> None:
    found, plan = planned(DatasetRequest(raccoon / "images", raccoon / "annotations", tmp_path))
    assert plan
    told: list[tuple[str, int, int]] = []
    out = build_preview(
        found, plan, tmp_path / "new" / "page.html", "Raccoons", progress=lambda *args: told.append(args),
    )
    assert told == [("preview", number, 60) for number in range(1, 61)]
    assert out.stat().st_size < 2_000_000
    view = view_dataset(found, plan, "Raccoons")
    assert out.read_text(encoding="utf-8") == render_preview(view)
    assert {row.name: row.images for row in view.sides} == plan.images_by_split()
    boxes = plan.boxes_by_split()
    assert [(row.id, row.label, row.counts) for row in view.classes] == [
        (1, "raccoon", tuple(boxes[split]["raccoon"] for split in SPLITS)),
    ]
    assert (view.total.images, view.total.boxes, view.left_out) == (200, 217, 0)
    assert [sum(bar.count for bar in chart.bars) for chart in view.histograms] == [217, 217, 200, 200]
    assert sum(images for _, _, images in view.sizes) + view.other_sizes == 200
    assert view.digest == plan.digest
    assert {one.side for one in view.tiles} == {"train", "eval"}
    copies = {finding.where for finding in found.checked.findings}
    marked = {one.name for one in view.tiles if one.findings}
    assert {Path(where).name for where in copies} == marked


def test_histograms_count_what_is_there(dataset: Dataset) -> None:
    dataset.add("a.jpg", Box("cat", 0, 0, 100, 50), Box("cat", 0, 0, 50, 25))
    dataset.add("b.jpg", Box("cat", 0, 0, 10, 10), Box("dog", 10, 10, 20, 50), Box("dog", 0, 0, 20, 20))
    dataset.add("c.jpg", data=picture((9, 9, 9), (70, 230)), size=(70, 230))
    sizes, ratios, boxes, sides = viewed(dataset).histograms

    def counted(bars: object) -> dict[str, int]:
        assert isinstance(bars, tuple)
        return {bar.name.replace("\N{NO-BREAK SPACE}", " "): bar.count for bar in bars if bar.count}

    assert counted(sizes.bars) == {"95 to 100 %": 1, "50 to 55 %": 1, "10 to 15 %": 1, "25 to 30 %": 2}
    assert counted(ratios.bars) == {"about 2:1": 2, "about 1:1": 2, "about 1:4": 1}
    assert counted(boxes.bars) == {"0": 1, "2": 1, "3": 1}
    assert counted(sides.bars) == {"100 to 109": 2, "230 to 239": 1}
    assert max(bar.share for bar in sides.bars) == 1
    assert "median 2, from 0 to 3" in boxes.note
    view = viewed(dataset)
    assert view.sizes == ((100, 50, 2), (70, 230, 1))
    assert view.total.bare == 1


def test_classes_of_one_side_and_classes_without_boxes_are_marked(dataset: Dataset) -> None:
    for side in ("train", "test"):
        dataset.add(f"{side}/{side}.jpg", GOOD, replace(GOOD, label="dog" if side == "train" else "cow"))
    dataset.add("train/more.jpg", GOOD)
    request = DatasetRequest(dataset.images, None, dataset.out, labels=("emu", "dog", "cat", "cow"))
    view = view_dataset(*planned(request), "t")
    assert [(row.id, row.label, row.counts, row.mark) for row in view.classes] == [
        (1, "emu", (0, 0), "no boxes"), (2, "dog", (1, 0), "train only"), (3, "cat", (2, 1), ""),
        (4, "cow", (0, 1), "eval only"),
    ]
    assert [row.shares for row in view.classes] == [(0, 0), (0.5, 0), (1, 1), (0, 1)]


def test_labels_that_are_display_names_have_their_class(dataset: Dataset) -> None:
    found, plan = planned(DatasetRequest(dataset_of(dataset, 3).images, None, dataset.out))
    assert plan
    view = view_dataset(replace(found, label_map=None), replace(plan, label_map=LabelMap.impose(["cat", "x"])), "t", 0)
    assert [(row.id, row.label) for row in view.classes] == [(1, "cat"), (2, "x")]
    assert view.tiles == ()


def colour(index: int) -> tuple[int, int, int]:
    """Colours that are no copies of each other."""
    return index % 12 * 20, index // 12 * 20, 40


def dataset_of(dataset: Dataset, count: int) -> Dataset:
    for index in range(count):
        dataset.add(f"{index:03}.jpg", replace(GOOD, xmin=float(index % 40)), data=picture(colour(index)))
    return dataset


def test_findings_are_grouped_errors_first() -> None:
    warning = Finding("D102", "warning", "w", "found", "fix")
    error = Finding("D106", "error", "e", "found", "fix")
    groups = group_findings([warning, *[replace(error, severity="warning")] * MAX_SHOWN, error])
    assert [(group.code, group.counts, len(group.shown), group.more) for group in groups] == [
        ("D106", (("error", 1), ("warning", MAX_SHOWN)), MAX_SHOWN, 1), ("D102", (("warning", 1),), 1, 0),
    ]
    assert groups[0].shown[0] == error


def test_the_sheet_has_every_class_on_both_sides_and_findings(dataset: Dataset) -> None:
    dataset_of(dataset, 90)
    for number, label in enumerate(["dog", "cow", "emu"]):
        for copy in range(4):
            dataset.add(
                f"{label}{copy}.jpg", replace(GOOD, label=label), data=picture((200, 60 * number, 60 * copy + 20)),
            )
    for index in range(20):
        dataset.add(f"clipped{index}.jpg", replace(GOOD, xmax=200), data=picture((10, 10, 12 * index)))
    dataset.add("reversed.jpg", Box("cat", 50, 40, 10, 10), data=picture((250, 250, 250)))
    view = viewed(dataset, 16)
    assert len(view.tiles) == len({one.name for one in view.tiles}) == 16
    seen = {(label, one.side) for one in view.tiles for label in one.labels}
    assert seen == {(label, side) for label in ("cat", "cow", "dog", "emu") for side in ("train", "eval")}
    marks = Counter(finding.code for one in view.tiles[:4] for finding in one.findings)
    assert marks == {"D103": 1, "D102": 3}
    assert [finding.where for finding in tile(view, "reversed.jpg").findings] == ["reversed.xml:14"]
    assert viewed(dataset, 16) == view
    rare = {(label, side) for label in ("cow", "dog") for side in ("train", "eval")}
    assert {(label, one.side) for one in viewed(dataset, 6).tiles[2:] for label in one.labels} == rare
    assert len(viewed(dataset, 500).tiles) == 123


def test_findings_of_a_table_belong_to_the_image_of_their_line(dataset: Dataset) -> None:
    lines = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    for index in range(6):
        dataset.image(f"{index}.jpg", picture((40 * index, 0, 99)))
        lines.append(f"{index}.jpg,100,50,cat,10,10,{200 if index == 4 else 50},40")
    table = dataset.folder / "labels.csv"
    table.write_text("\n".join(lines))
    found, plan = planned(DatasetRequest(dataset.images, table, dataset.out))
    view = view_dataset(found, plan, "t")
    assert {one.name: [finding.where for finding in one.findings] for one in view.tiles if one.findings} == {
        "4.jpg": ["labels.csv:6"],
    }


def test_with_errors_there_is_no_split_and_refused_images_are_shown_as_far_as_possible(dataset: Dataset) -> None:
    dataset.add("good.jpg", GOOD)
    dataset.add("flat.jpg", Box("dog", 20, 10, 60, 40), Box("dog", 5, 5, 5, 9), data=picture((1, 2, 3)))
    dataset.add("webp.webp", GOOD, data=picture(kind="WEBP"))
    dataset.add("broken.jpg", GOOD, data=b"\xff\xd8")
    dataset.image("torn.jpg", picture((0, 99, 0)))
    (dataset.images / "torn.xml").write_text("<annotation>")
    dataset.add("lonely.jpg", Box("cat", 200, 1, 300, 3), data=picture((0, 0, 99)))
    view = viewed(dataset)
    assert [(row.name, row.images) for row in view.sides] == [("all", 1)]
    assert (view.left_out, view.digest, view.severities["error"]) == (5, "", 5)
    assert [(row.label, row.counts, row.mark) for row in view.classes] == [("cat", (1,), ""), ("dog", (0,), "left out")]
    assert tile(view, "good.jpg").side == ""
    assert tile(view, "flat.jpg").boxes == (Drawn("dog", 20, 10, 40, 30, False),)
    assert {one.side for one in view.tiles} == {"", "left out"}
    assert [bool(tile(view, name).picture) for name in ("webp.webp", "torn.jpg", "lonely.jpg", "broken.jpg")] == [
        True, True, True, False,
    ]
    assert tile(view, "broken.jpg").fault
    assert "No picture of broken.jpg" in render_preview(view)


def test_without_any_fit_image(dataset: Dataset) -> None:
    dataset.add("broken.jpg", GOOD, data=b"")
    page = render_preview(viewed(dataset))
    assert "There is no box in any image." in page
    assert "1 error: nothing is built until it is corrected." in " ".join(page.split())


def test_thumbnails_are_turned_like_the_record(dataset: Dataset) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = BytesIO()
    half_red = Image.new("RGB", (800, 400), (0, 200, 0))
    half_red.paste((200, 0, 0), (0, 0, 400, 400))
    half_red.save(data, "JPEG", exif=exif)
    dataset.add("a.jpg", GOOD, data=data.getvalue(), size=(400, 800))
    dataset.add("b.png", GOOD, data=picture(size=(30, 20), kind="PNG"), size=(30, 20))
    dataset.add("c.png", GOOD, data=picture(size=(3000, 2), kind="PNG"), size=(3000, 2))
    view = viewed(dataset, policies=Policies(rotation="fix", zero_area="fix"))
    shapes = {one.name: ((one.width, one.height), shape(one.picture)) for one in view.tiles}
    assert shapes == {
        "a.jpg": ((400, 800), (128, 256)), "b.png": ((30, 20), (30, 20)), "c.png": ((3000, 2), (256, 1)),
    }
    # Orientation 6 is shown turned clockwise, so its left half is on top.
    upright = opened(tile(view, "a.jpg").picture).convert("RGB")
    for row, stronger in ((60, 0), (190, 1)):
        pixel = upright.getpixel((64, row))
        assert isinstance(pixel, tuple)
        assert pixel[stronger] > 150 > pixel[1 - stronger]


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "I;16", "CMYK"])
def test_thumbnails_of_every_kind_of_image(dataset: Dataset, mode: str) -> None:
    data = BytesIO()
    Image.new(mode, (100, 50)).save(data, "JPEG" if mode == "CMYK" else "PNG")
    name = "a.jpg" if mode == "CMYK" else "a.png"
    dataset.add(name, GOOD, data=data.getvalue())
    dataset.add("b.jpg", GOOD)
    assert shape(tile(viewed(dataset, policies=Policies(unfit="fix")), name).picture) == (100, 50)


def test_difficult_objects_and_crowds_are_dashed_and_only_so_many_boxes_drawn(dataset: Dataset) -> None:
    many = [Box("cat", 0, 0, 1 + index / 4, 20) for index in range(MAX_DRAWN + 20)]
    dataset.add("a.jpg", replace(GOOD, difficult=True), *many, Box("cat", 0, 0, 90, 40))
    dataset.add("b.jpg", GOOD, data=picture())
    one = tile(viewed(dataset), "a.jpg")
    assert (len(one.boxes), one.count) == (MAX_DRAWN, MAX_DRAWN + 22)
    assert (one.boxes[0].width, one.boxes[1]) == (90, Drawn("cat", 10, 10, 40, 30, True))
    assert f"{MAX_DRAWN + 22} boxes</span>, the largest {MAX_DRAWN} drawn" in render_preview(viewed(dataset))


def test_an_image_that_changed_since_has_a_placeholder(dataset: Dataset) -> None:
    dataset_of(dataset, 4)
    found, plan = planned(DatasetRequest(dataset.images, None, dataset.out))
    (dataset.images / "000.jpg").unlink()
    (dataset.images / "001.jpg").write_bytes(b"\xff\xd8\xff\xe0nothing")
    view = view_dataset(found, plan, "t")
    assert {one.name for one in view.tiles if one.fault} == {"000.jpg", "001.jpg"}
    assert "No such file" in tile(view, "000.jpg").fault
    assert tile(view, "001.jpg").fault.startswith("it cannot be decoded")
    assert view_dataset(found, plan, "t") == view
    assert render_preview(view).count('class="missing"') == 2


@dataclass(frozen=True)
class Watched:
    """An image that notes when it is read."""

    image: ImageSource
    reads: list[str]

    @property
    def promised(self) -> str | None:
        return self.image.promised

    def read(self) -> bytes:
        self.reads.append(str(self.image))
        return self.image.read()

    def extras(self) -> Mapping[str, bytes]:
        return self.image.extras()

    def __str__(self) -> str:
        return str(self.image)


def test_only_the_images_of_the_sheet_are_opened(dataset: Dataset) -> None:
    found = check_dataset(DatasetRequest(dataset_of(dataset, 30).images, None, dataset.out))
    reads: list[str] = []
    samples = tuple(replace(one, image=Watched(one.image, reads)) for one in found.checked.samples)
    watched = replace(found, checked=Checked(samples, ()))
    view = view_dataset(watched, plan_dataset(samples), "t", 5)
    assert sorted(Path(read).name for read in reads) == sorted(one.name for one in view.tiles)
    assert len(reads) == 5


def test_the_page_does_not_depend_on_where_the_dataset_lies(dataset: Dataset, tmp_path: Path) -> None:
    dataset_of(dataset, 12)
    dataset.add("sub/x.jpg", replace(GOOD, xmax=300))
    dataset.add("sub/y.jpg", Box("cat", 1, 1, 1, 1))
    shutil.copytree(dataset.images, tmp_path / "other" / "place")
    pages = []
    for images in (dataset.images, tmp_path / "other" / "place"):
        found, plan = planned(DatasetRequest(images, None, dataset.out))
        pages.append(build_preview(found, plan, tmp_path / "page.html", "t").read_bytes())
    assert pages[0] == pages[1]
    assert str(tmp_path).encode() not in pages[0]


@pytest.mark.long
def test_sixty_pictures_of_noise_stay_below_two_megabytes(dataset: Dataset) -> None:
    noise = Random(0)  # noqa: S311
    for index in range(60):
        data = BytesIO()
        Image.frombytes("RGB", (256, 256), noise.randbytes(3 * 256 * 256)).save(data, "JPEG", quality=80)
        dataset.add(f"{index}.jpg", GOOD, data=data.getvalue(), size=(256, 256))
    request = DatasetRequest(dataset.images, None, dataset.out, near_duplicates=False)
    out = build_preview(*planned(request), dataset.folder / "page.html", "t")
    assert out.stat().st_size < 2_000_000


def test_a_page_that_cannot_be_written_and_a_sheet_of_less_than_nothing(dataset: Dataset) -> None:
    found, plan = planned(DatasetRequest(dataset_of(dataset, 2).images, None, dataset.out))
    with pytest.raises(DataError, match="writing the preview to"):
        build_preview(found, plan, dataset.images, "t")
    with pytest.raises(SpecError, match="less than none"):
        build_preview(found, plan, dataset.folder / "page.html", "t", -1)


def told_by(base: Preview, text: str) -> str:
    """A page on which everything that a stranger may write is that text."""
    box = Drawn(text, 1, 1, 5, 5, False)
    finding = Finding("D102", "error", text, text, text)
    one = Tile(text, "train", 100, 50, "data:image/jpeg;base64,", "", (box,), 1, (text,), (finding,))
    empty = replace(one, picture="", fault=text)
    return render_preview(replace(base, title=text, tiles=(one, empty), findings=group_findings([finding]), classes=(
        replace(base.classes[0], label=text),
    )))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Preview:
    return viewed(dataset_of(Dataset(tmp_path_factory.mktemp("base")), 4))


@drawn(60, deadline=None)
@given(text=st.one_of(
    st.text(max_size=30),
    st.lists(st.sampled_from([*"<>\"'&;=/ `", "script", "</title>", "<!--", "-->", "onload=", "]]>", "{{", "}}", "{%"]),
             max_size=8).map("".join),
))
def test_no_text_changes_the_structure_of_the_page(base: Preview, text: str) -> None:
    assert Tags(told_by(base, text)).tags == Tags(told_by(base, "x")).tags


def test_markup_is_shown_as_text(base: Preview) -> None:
    page = Tags(told_by(base, EVIL))
    assert page.values.count(EVIL) > 5
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not [name for _, names in page.tags for name in names if name.startswith("on") or name == "style"]


def test_the_policy_allows_this_script_and_style_and_nothing_else(base: Preview) -> None:
    page = render_preview(base)
    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    rules = dict(rule.split(" ", 1) for rule in policy.replace("&#39;", "'").split("; "))
    for tag in ("script", "style"):
        [inline] = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert rules[f"{tag}-src"] == f"'sha256-{base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()}'"
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    assert page.index("Content-Security-Policy") < page.index("<style>") < page.index("<script>")
    links = re.findall(r'\b(?:src|href)="([^"]*)"', page)
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)


def test_what_screen_readers_need_is_there(base: Preview) -> None:
    page = render_preview(base)
    assert '<html lang="en">' in page
    assert re.findall(r"<h(\d)", page)[:3] == ["1", "2", "2"]
    assert not re.findall(r"<th(?! ?ead)(?![^>]*scope=)", page)
    alts = re.findall(r'<img [^>]*alt="([^"]*)"', page)
    assert sorted(alts) == [f"{index:03}.jpg, 1 box: cat" for index in range(4)]


def test_names_that_are_no_unicode_are_written(dataset: Dataset) -> None:
    found, plan = planned(DatasetRequest(dataset_of(dataset, 2).images, None, dataset.out))
    out = build_preview(found, plan, dataset.folder / "page.html", "a\udcff\N{RACCOON}")
    assert "<h1>a?\N{RACCOON}</h1>" in out.read_text(encoding="utf-8")
