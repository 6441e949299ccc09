"""`gcpod config render` and `lint` at the command line: differences, settings, mending, JSON, SARIF, exit codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gcpod import errors
from gcpod.pipeline.render import template_text
from gcpod.textproto import parse
from tests.data.making import Dataset

OK, USAGE, FOUND = 0, 2, errors.ChecksFailedError.exit_code
TEMPLATE = template_text("ssd_mobilenet_v2", Path())[0]
GOOD = """\
model { ssd { num_classes: 2 } }
train_config { num_steps: 500 }
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    made = Dataset(tmp_path)
    made.cats_and_dogs()
    (tmp_path / "gcpod.yaml").write_text(
        "data: {images: images}\ntrain: {steps: 1000}\n"
        "model:\n  set:\n    train_config.batch_size: 4\n    train_config.sync_replicas: true\n",
        encoding="utf-8",
    )
    return tmp_path


def test_settings_of_the_spec_and_of_the_command_are_set(gcpod: Any, project: Path) -> None:
    wanted = "model.ssd.image_resizer.fixed_shape_resizer.height=96"
    tree = parse(gcpod("config", "render", "--local", "--set", wanted, "--set", "train_config.batch_size=12").out)
    assert tree.text("train_config.batch_size") == "12"
    assert tree.text("train_config.sync_replicas") == "true"
    assert tree.text("model.ssd.image_resizer.fixed_shape_resizer.height") == "96"


def test_the_difference_from_the_template_is_all_that_is_shown(gcpod: Any, project: Path) -> None:
    lines = gcpod("config", "render", "--local", "--diff").out.splitlines()
    removed = [line[1:] for line in lines if line.startswith("-") and not line.startswith("---")]
    added = [line[1:].strip() for line in lines if line.startswith("+") and not line.startswith("+++")]
    assert "batch_size: 4" in added
    assert "num_classes: 2" in added
    assert all(line in TEMPLATE.splitlines() for line in removed)
    assert len(lines) < len(TEMPLATE.splitlines())


@pytest.mark.parametrize("setting", ["batch_size", "=1", "train_config.batch_sise=1"])
def test_settings_that_are_none_are_refused(gcpod: Any, project: Path, setting: str) -> None:
    code = errors.ConfigError.exit_code if "=" in setting[1:] else USAGE
    refused = gcpod("config", "render", "--local", "--set", setting)
    assert (refused.code, refused.out) == (code, "")


def test_a_spec_with_a_setting_that_is_no_value_names_its_line(gcpod: Any, project: Path) -> None:
    (project / "gcpod.yaml").write_text("model:\n  set:\n    train_config.batch_size: [1]\n", encoding="utf-8")
    refused = gcpod("config", "render", "--local")
    assert refused.code == errors.SpecError.exit_code
    assert "gcpod.yaml:3" in refused.err


def test_findings_as_json_and_sarif(gcpod: Any, tmp_path: Path) -> None:
    (tmp_path / "a b.config").write_text(GOOD.replace("500", "501"), encoding="utf-8")
    as_json = gcpod("config", "lint", "a b.config", "--json")
    [finding] = as_json.json
    assert (as_json.code, finding["code"], finding["where"]) == (FOUND, "C210", "a b.config:2:27")
    as_sarif = gcpod("config", "lint", "a b.config", "--sarif")
    assert as_sarif.code == FOUND
    [run] = as_sarif.json["runs"]
    assert (as_sarif.json["version"], run["tool"]["driver"]["rules"]) == ("2.1.0", [{"id": "C210"}])
    [result] = run["results"]
    assert (result["ruleId"], result["level"]) == ("C210", "error")
    assert "write num_steps: 600" in result["message"]["text"]
    [location] = result["locations"]
    assert location["physicalLocation"] == {
        "artifactLocation": {"uri": "a%20b.config"}, "region": {"startLine": 2, "startColumn": 27},
    }


def test_several_files_are_checked_at_once(gcpod: Any, tmp_path: Path) -> None:
    (tmp_path / "good.config").write_text(GOOD, encoding="utf-8")
    (tmp_path / "bad.config").write_text("model {", encoding="utf-8")
    assert gcpod("config", "lint", "good.config", "good.config").code == OK
    both = gcpod("config", "lint", "good.config", "bad.config")
    assert both.code == FOUND
    assert "C200 bad.config:1:8" in both.out
    assert gcpod("config", "lint").code == USAGE


def test_mending_changes_the_file_and_says_what(gcpod: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.config"
    good = f"{GOOD}# odd"
    file.write_bytes(good.replace("500", "501").replace("\n", "\r\n").encode())
    mended = gcpod("config", "lint", "mine.config", "--fix", "--labels", "3")
    assert mended.code == OK
    assert "mended: C205 mine.config:1:28" in mended.err
    assert "mended: C210 mine.config:2:27" in mended.err
    assert file.read_bytes() == good.replace("500", "600").replace(": 2", ": 3").replace("\n", "\r\n").encode()
    before = file.stat().st_mtime_ns
    assert gcpod("config", "lint", "mine.config", "--fix", "--labels", "3").code == OK
    assert (file.stat().st_mtime_ns, [path.name for path in tmp_path.iterdir()]) == (before, ["mine.config"])


def test_the_label_map_tells_the_number_of_classes(gcpod: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.config").write_text(GOOD, encoding="utf-8")
    (tmp_path / "map.pbtxt").write_text("item { id: 1 name: 'a' } item { id: 2 name: 'b' }", encoding="utf-8")
    assert gcpod("config", "lint", "mine.config", "--label-map", "map.pbtxt", "--json").json == []
    (tmp_path / "map.pbtxt").write_text("item { id: 1 name: 'a' } item { id: 4 name: 'b' }", encoding="utf-8")
    gap, number = gcpod("config", "lint", "mine.config", "--label-map", "map.pbtxt", "--json").json
    assert (gap["code"], gap["severity"], number["code"]) == ("C205", "warning", "C205")
    assert "the label map has 4 classes" in number["found"]


def test_a_config_is_held_against_the_source_that_is_named(gcpod: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.config").write_text(GOOD, encoding="utf-8")
    protos = tmp_path / "source" / "object_detection" / "protos"
    protos.mkdir(parents=True)
    refused = gcpod("config", "lint", "mine.config", "--source", "source/object_detection")
    assert (refused.code, refused.out) == (errors.PackageError.exit_code, "")
    (protos / "pipeline_pb2.py").write_text(
        "D = p.AddSerializedFile(b'\\n\\x01p\\x12\\x17object_detection.protos'\n"
        "                        b'\\\"\\x19\\n\\x17TrainEvalPipelineConfig')",
        encoding="utf-8",
    )
    found = gcpod("config", "lint", "mine.config", "--source", "source", "--json").json
    assert [one["found"] for one in found] == [
        f"TrainEvalPipelineConfig of object_detection source has no field {name}" for name in ("model", "train_config")
    ]


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_config_that_cannot_be_read(gcpod: Any, tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "mine.config").write_bytes(content)
    assert gcpod("config", "lint", "mine.config").code == errors.ConfigError.exit_code
