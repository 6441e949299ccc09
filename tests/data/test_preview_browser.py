"""The preview in a real browser: what people see, not what the template says."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from selenium.webdriver import Chrome, ChromeOptions, Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

from gcpod.data.build import CheckedDataset, DatasetRequest, check_dataset
from gcpod.data.model import SPLITS, Box
from gcpod.data.plan import DatasetPlan, plan_dataset
from gcpod.data.preview.page import build_preview
from gcpod.spec import Policies

from .making import Dataset, picture

pytestmark = pytest.mark.tools

EVIL = "<script>alert(1)</script>"
EVIL_NAME = "<img src=x onerror=alert(2)>.jpg"

PLACES = """
  return [...document.querySelectorAll(".tile")].filter(tile => tile.querySelector("img")).map(tile => {
    const image = tile.querySelector("img"), at = image.getBoundingClientRect();
    return {
      name: tile.querySelector(".name").textContent, loaded: image.naturalWidth, width: at.width, height: at.height,
      boxes: [...tile.querySelectorAll("rect")].map(rect => {
        const box = rect.getBoundingClientRect();
        return [box.left - at.left, box.top - at.top, box.right - at.left, box.bottom - at.top];
      }),
    };
  });
"""
CONTRAST = """
  const luminance = colour => {
    const parts = colour.match(/[0-9.]+/g).slice(0, 3).map(part => part / 255);
    const [r, g, b] = parts.map(part => part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = node => {
    const colour = getComputedStyle(node).backgroundColor;
    return colour !== "rgba(0, 0, 0, 0)" || !node.parentElement ? colour : behind(node.parentElement);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = {};
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || node.closest(".picture, script, title, option")) continue;
    const style = getComputedStyle(node), pair = [style[node.closest("svg") ? "fill" : "color"], behind(node)];
    const [dark, light] = pair.map(luminance).sort((one, other) => one - other);
    found[pair.join(" on ")] = (light + .05) / (dark + .05);
  }
  return found;
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    names = ("chromium", "chromium-browser", "google-chrome")
    program, driver = next(filter(None, map(shutil.which, names)), None), shutil.which("chromedriver")
    if not program or not driver:
        if os.environ.get("CI"):
            pytest.fail("chromium or chromedriver is missing in CI")
        pytest.skip("chromium or chromedriver is not on this machine")
    options = ChromeOptions()
    options.binary_location = program
    options.add_argument("--headless=new")
    options.add_argument("--force-device-scale-factor=1")
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with Chrome(options=options, service=Service(driver)) as chrome:
        yield chrome


@pytest.fixture(autouse=True)
def _fresh(browser: Chrome) -> None:
    resize(browser, 1400)
    media(browser, "light")


@pytest.fixture(scope="module")
def photographs(raccoon: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DatasetPlan]:
    """The page of 200 real photographs, and their plan."""
    folder = tmp_path_factory.mktemp("raccoon")
    found = check_dataset(DatasetRequest(raccoon / "images", raccoon / "annotations", folder))
    plan = plan_dataset(found.checked.samples)
    return build_preview(found, plan, folder / "page.html", "Raccoons"), plan


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DatasetPlan, CheckedDataset]:
    """The page of a made dataset: three classes, names that are markup, all shapes of image, findings."""
    dataset = Dataset(tmp_path_factory.mktemp("drawn"))
    cat, dog = Box("cat", 10, 10, 50, 40), Box("dog", 0, 0, 100, 50, difficult=True)
    for index in range(8):
        dataset.add(f"{index}.jpg", replace(cat, xmin=2.0 * index), dog, data=picture((30 * index, 60, 90)))
    dataset.add(EVIL_NAME, Box(EVIL, 30, 20, 70, 45), data=picture((0, 250, 0)))
    dataset.add("wide.png", Box("cat", 700, 3, 1400, 30), data=picture((0, 0, 250), (1500, 33), "PNG"), size=(1500, 33))
    dataset.add("tall.jpg", Box("dog", 3, 3, 27, 444), data=picture((90, 0, 250), (31, 500)), size=(31, 500))
    dataset.add("clipped.jpg", replace(cat, ymax=90), data=picture((250, 250, 0)))
    exif = Image.Exif()
    exif[0x0112] = 8
    turned = BytesIO()
    Image.new("RGB", (640, 400), (250, 0, 250)).save(turned, "JPEG", exif=exif)
    dataset.add("turned.jpg", Box("cat", 100, 300, 380, 630), data=turned.getvalue(), size=(400, 640))
    request = DatasetRequest(dataset.images, None, dataset.out, policies=Policies(rotation="fix"))
    found = check_dataset(request)
    plan = plan_dataset(found.checked.samples)
    return build_preview(found, plan, dataset.folder / "page.html", EVIL), plan, found


def resize(browser: Chrome, width: int) -> None:
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
        "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False,
    })


def media(browser: Chrome, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def load(browser: Chrome, page: Path) -> None:
    browser.get(page.as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach(item => item.open = true)")


def told(browser: Chrome, script: str) -> Any:
    return browser.execute_script(script)


def names(browser: Chrome) -> list[str]:
    shown = "return [...document.querySelectorAll('.tile')].filter(tile => tile.offsetParent)"
    found: list[str] = told(browser, f"{shown}.map(tile => tile.querySelector('.name').textContent)")
    return found


def check_places(browser: Chrome, plan: DatasetPlan) -> int:
    """Holds each drawn rectangle against its box; returns the number of pictures."""
    samples = {sample.name: sample for split in SPLITS for sample in plan.samples(split)}
    pictures = told(browser, PLACES)
    for one in pictures:
        assert one["loaded"] > 0
        sample, width, height = samples[one["name"]], one["width"], one["height"]
        assert width / height == pytest.approx(sample.width / sample.height, rel=0.1)
        wanted = sorted(
            (box.xmin / sample.width, box.ymin / sample.height, box.xmax / sample.width, box.ymax / sample.height)
            for box in sample.boxes
        )
        edges = sorted((x / width, y / height, right / width, low / height) for x, y, right, low in one["boxes"])
        assert len(edges) == len(wanted)
        for have, want in zip(edges, wanted, strict=True):
            assert have == pytest.approx(want, abs=0.01)
            assert all(-0.001 <= edge <= 1.001 for edge in have)
    return len(pictures)


def test_thumbnails_are_there_and_boxes_where_they_belong(
    browser: Chrome, photographs: tuple[Path, DatasetPlan], drawn: tuple[Path, DatasetPlan, CheckedDataset],
) -> None:
    for page, plan, count in ((*photographs, 60), (*drawn[:2], 13)):
        for width in (1400, 400):
            resize(browser, width)
            load(browser, page)
            assert check_places(browser, plan) == count


def test_the_numbers_shown_are_those_of_the_data(
    browser: Chrome, drawn: tuple[Path, DatasetPlan, CheckedDataset], photographs: tuple[Path, DatasetPlan],
) -> None:
    for page, plan in (drawn[:2], photographs):
        load(browser, page)
        rows = {cells[0]: cells[1:] for cells in table(browser, "#split")}
        boxes = plan.boxes_by_split()
        for split in SPLITS:
            assert int(rows[split][0]) == plan.images_by_split()[split]
            assert int(rows[split][2]) == sum(boxes[split].values())
        classes = [(cells[1], int(cells[2]), int(cells[4])) for cells in table(browser, "#classes")]
        assert classes == [(label, boxes["train"][label], boxes["eval"][label]) for label in boxes["train"]]
        images = sum(plan.images_by_split().values())
        for chart in ("Boxes per image", "Image size"):
            assert sum(int(count) for _, count in table(browser, f"[data-chart='{chart}']")) == images
        assert sum(int(cells[1]) for cells in table(browser, "#measures > table")) == images


def table(browser: Chrome, where: str) -> list[list[str]]:
    rows: list[list[str]] = told(browser, f"""
      return [...document.querySelector("{where}").querySelectorAll("tbody tr")].map(
        row => [...row.cells].map(cell => cell.innerText.trim().replaceAll(",", "")));
    """)
    return rows


def test_findings_are_listed(browser: Chrome, drawn: tuple[Path, DatasetPlan, CheckedDataset]) -> None:
    load(browser, drawn[0])
    rows = table(browser, "#findings")
    told_of = drawn[2].checked.findings
    assert sorted(row[2] for row in rows) == sorted(finding.found.replace(",", "") for finding in told_of)
    assert {row[1] for row in rows} == {"clipped.xml:14", "turned.xml"}


def test_the_filters_hide_and_show(browser: Chrome, drawn: tuple[Path, DatasetPlan, CheckedDataset]) -> None:
    page, plan, _ = drawn
    load(browser, page)
    by_label = {label: {
        sample.name for split in SPLITS for sample in plan.samples(split) if label in sample.boxes.labels
    } for label in ("cat", "dog", EVIL)}
    everything = names(browser)
    assert len(everything) == 13
    choice = Select(browser.find_element(By.ID, "label"))
    for option in choice.options[1:]:
        label = option.text.rpartition(" (")[0]
        choice.select_by_visible_text(option.text)
        assert set(names(browser)) == by_label.pop(label)
    assert by_label == {}
    choice.select_by_index(0)
    assert names(browser) == everything
    part = Select(browser.find_element(By.ID, "part"))
    for split in SPLITS:
        part.select_by_visible_text(split)
        assert set(names(browser)) == {sample.name for sample in plan.samples(split)}
    part.select_by_visible_text("with findings")
    assert set(names(browser)) == {"clipped.jpg", "turned.jpg"}
    assert browser.find_element(By.ID, "shown").text == "2 of 13 shown"


def test_a_click_opens_a_larger_picture(browser: Chrome, photographs: tuple[Path, DatasetPlan]) -> None:
    load(browser, photographs[0])
    first, second = names(browser)[:2]
    frame = browser.find_element(By.CSS_SELECTOR, ".tile .frame")
    small = frame.size["width"]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", frame)
    frame.click()
    large = browser.find_element(By.CSS_SELECTOR, "dialog[open] img")
    assert large.size["width"] > 2 * small
    assert browser.find_element(By.CSS_SELECTOR, "dialog .name").text == first
    assert told(browser, """
      const parts = [...document.querySelectorAll("dialog img, dialog rect")];
      const [image, box] = parts.map(part => part.getBoundingClientRect());
      return image.left <= box.left && box.right <= image.right && image.top <= box.top && box.bottom <= image.bottom;
    """)
    browser.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert browser.find_element(By.CSS_SELECTOR, "dialog .name").text == second
    browser.find_element(By.ID, "back").click()
    assert browser.find_element(By.CSS_SELECTOR, "dialog .name").text == first
    browser.find_element(By.ID, "close").click()
    assert browser.find_elements(By.CSS_SELECTOR, "dialog[open]") == []


def test_markup_of_strangers_is_text(browser: Chrome, drawn: tuple[Path, DatasetPlan, CheckedDataset]) -> None:
    # Any alert would make each of the next commands fail.
    load(browser, drawn[0])
    assert browser.find_element(By.TAG_NAME, "h1").text == EVIL == browser.title
    assert EVIL_NAME in names(browser)
    assert told(browser, "return document.scripts.length") == 1
    assert told(browser, "return document.querySelectorAll('img:not([src^=\"data:image/jpeg;base64,\"])').length") == 0
    labels = told(browser, "return [...document.querySelectorAll('.picture text')].map(text => text.textContent)")
    assert EVIL in labels
    for frame in browser.find_elements(By.CSS_SELECTOR, ".tile .frame"):
        browser.execute_script("arguments[0].click()", frame)
        assert told(browser, "return document.scripts.length") == 1


def test_nothing_is_fetched_and_nothing_is_complained_about(
    browser: Chrome, drawn: tuple[Path, DatasetPlan, CheckedDataset], photographs: tuple[Path, DatasetPlan],
) -> None:
    browser.get_log("browser")  # type: ignore[no-untyped-call]
    for page in (drawn[0], photographs[0]):
        load(browser, page)
        entries = told(browser, "return performance.getEntriesByType('resource').map(entry => entry.name)")
        assert [entry for entry in entries if not entry.startswith("data:")] == []
        assert browser.get_log("browser") == []  # type: ignore[no-untyped-call]


def test_the_policy_keeps_what_it_promises(browser: Chrome, drawn: tuple[Path, DatasetPlan, CheckedDataset]) -> None:
    load(browser, drawn[0])
    broken = browser.execute_async_script("""
      const done = arguments[0], broken = [];
      document.addEventListener("securitypolicyviolation", event => {
        broken.push(event.effectiveDirective);
        if (broken.length === 4) done(broken);
      });
      const make = (tag, more) => document.body.append(Object.assign(document.createElement(tag), more));
      make("script", {textContent: "window.ran = true"});
      make("style", {textContent: "body { display: none }"});
      make("img", {src: "file:///none.png"});
      fetch("data:,").catch(() => {});
    """)
    assert sorted(broken) == ["connect-src", "img-src", "script-src-elem", "style-src-elem"]
    assert told(browser, "return window.ran") is None
    browser.get_log("browser")  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_never_scrolls_sideways(
    browser: Chrome, drawn: tuple[Path, DatasetPlan, CheckedDataset], photographs: tuple[Path, DatasetPlan], width: int,
) -> None:
    resize(browser, width)
    for page in (drawn[0], photographs[0]):
        load(browser, page)
        room = told(browser, "return document.documentElement.clientWidth")
        assert width - 20 < room <= width
        assert told(browser, "return document.documentElement.scrollWidth") == room


def test_light_and_dark_have_contrast(browser: Chrome, drawn: tuple[Path, DatasetPlan, CheckedDataset]) -> None:
    papers = set()
    for scheme in ("light", "dark"):
        media(browser, scheme)
        load(browser, drawn[0])
        told(browser, "document.querySelector('.tile .frame').click()")
        pairs = told(browser, CONTRAST)
        assert len(pairs) >= 5
        # https://www.w3.org/TR/WCAG22/#contrast-minimum
        assert {pair: ratio for pair, ratio in pairs.items() if ratio < 4.5} == {}
        papers.add(told(browser, "return getComputedStyle(document.body).backgroundColor"))
    assert len(papers) == 2
