"""Finding C202: configs held against the schema of a release."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

from gcpod.errors import ConfigError
from gcpod.pipeline.fields import literal_of
from gcpod.pipeline.lint import LintContext, lint_config
from gcpod.pipeline.render import template_names, template_text
from gcpod.pipeline.schema import ROOT, Field, Schema, built_in_schema, parse_schema, read_schema, to_json
from tests.data.making import outcome

ANYWHERE = LintContext(cloud=False)
SCHEMA = built_in_schema()


@pytest.mark.parametrize(("text", "place", "found", "fix"), [
    ("model { ssd { num_clases: 3 } }", "1:15", "Ssd of object_detection 2.8.0.post1 has no field num_clases",
     "did you mean num_classes?"),
    ("train_config {\n  shuffle: true }", "2:3", "TrainConfig of", "it is a field of"),
    ("train_config { zzz: 1 }", "1:16", "has no field zzz", "package the release that has it"),
    ("train_config { batch_size: 1.5 }", "1:28", "batch_size is 1.5, it wants uint32", "write a whole number"),
    ("train_config { batch_size: 4294967296 }", "1:28", "it wants uint32", "write a whole number"),
    ("train_config { batch_size: -1 }", "1:28", "it wants uint32", "write a whole number"),
    ('train_config { batch_size: "8" }', "1:28", 'batch_size is "8", it wants uint32', "write a whole number"),
    ("train_config { fine_tune_checkpoint: gs }", "1:38", "it wants string", 'write a text in "quotes"'),
    ("train_config { sync_replicas: yes }", "1:31", "it wants bool", "write true or false"),
    ("train_config { gradient_clipping_by_norm: high }", "1:43", "it wants float", "write a number"),
    ("train_config { fine_tune_checkpoint_version: v2 }", "1:46", "no CheckpointVersion", "did you mean V2?"),
    ('train_config { fine_tune_checkpoint_version: "V2" }', "1:46", "no CheckpointVersion", "did you mean V2?"),
    ("train_config { fine_tune_checkpoint_version: 3 }", "1:46", "fine_tune_checkpoint_version is 3, no Checkpoint",
     "use one of: V2 (2), V1 (1), UNKNOWN (0)"),
    ("model: 3", "1:8", "model is 3", "write model { … }"),
    ("train_config { batch_size { } }", "1:16", "batch_size is a message here", "write batch_size: and"),
    ("model { ssd { image_resizer { fixed_shape_resizer { } keep_aspect_ratio_resizer { } } } }", "1:55",
     "keep_aspect_ratio_resizer and fixed_shape_resizer are both set", "it is the image_resizer_oneof"),
])
def test_what_the_schema_does_not_have(text: str, place: str, found: str, fix: str) -> None:
    [finding] = [one for one in lint_config(text, "f", ANYWHERE) if one.code == "C202"]
    assert (finding.severity, finding.where) == ("error", f"f:{place}")
    assert found in finding.found
    assert fix in finding.fix


def test_the_last_of_two_values_counts_and_is_said() -> None:
    [finding] = lint_config("train_config { batch_size: 8 batch_size: 16 }", "f", ANYWHERE)
    assert (finding.severity, finding.where) == ("warning", "f:1:30")
    repeated = 'train_input_reader { tf_record_input_reader { input_path: "a" input_path: ["b", "c"] } }'
    assert lint_config(repeated, "f", ANYWHERE) == []


@pytest.mark.parametrize(("path", "value", "found"), [
    ("train_config.batch_size", "abc", "'abc' is no uint32"), ("train_config.batch_size", "3 } x {", "is no uint32"),
    ("train_config.sync_replicas", "yes", "'yes' is no bool"), ("train_config.batch_size", "", "'' is no uint32"),
    ("train_config.fine_tune_checkpoint_version", "V3", "'V3' is no CheckpointVersion"),
    ("train_config.fine_tune_checkpoint_version", "-1", "'-1' is no CheckpointVersion"),
])
def test_a_value_that_its_field_cannot_have_is_refused(path: str, value: str, found: str) -> None:
    with pytest.raises(ConfigError, match="C202") as caught:
        literal_of(path, value, SCHEMA)
    assert found in caught.value.found


def test_an_extension_is_unknown_to_the_release() -> None:
    [finding] = lint_config("[a.b.c] { x: 1 }", "f", ANYWHERE)
    assert (finding.code, finding.where) == ("C202", "f:1:1")


@pytest.mark.parametrize("value", ["8", "+8", "0x10", "010", "4294967295"])
def test_whole_numbers_as_the_format_has_them(value: str) -> None:
    assert lint_config(f"train_config {{ batch_size: {value} }}", "f", ANYWHERE) == []


@pytest.mark.parametrize("value", ["1", "1.", ".5", "1e-3", "1.5f", "inf", "-inf", "nan", "-2", "+3"])
def test_numbers_as_the_format_has_them(value: str) -> None:
    assert lint_config(f"train_config {{ gradient_clipping_by_norm: {value} }}", "f", ANYWHERE) == []


def test_real_configs_and_templates_have_no_other_finding_than_their_gaps(shared_data: Path) -> None:
    paths = (shared_data / "pipeline-configs").glob("*.config")
    texts = {path.name: path.read_text(encoding="utf-8") for path in paths}
    texts |= {name: template_text(name, Path())[0] for name in template_names()}
    assert len(texts) >= 27
    for name, text in texts.items():
        found = {finding.code for finding in lint_config(text, name, ANYWHERE)} - {"C206"}
        assert found == ({"C203"} if "graph_rewriter" in text else set()), name


def test_a_config_for_another_release_is_caught() -> None:
    older = replace(SCHEMA, release="2.0", messages={
        **SCHEMA.messages, ROOT: {key: one for key, one in SCHEMA.messages[ROOT].items() if key != "graph_rewriter"},
    })
    text = "graph_rewriter { quantization { delay: 500 } }"
    assert [finding.code for finding in lint_config(text, "f", ANYWHERE)] == ["C203"]
    finding, _ = lint_config(text, "f", replace(ANYWHERE, schema=older))
    assert finding.found == "TrainEvalPipelineConfig of object_detection 2.0 has no field graph_rewriter"


@pytest.mark.parametrize(("path", "value", "literal"), [
    ("train_config.batch_size", "16", "16"),
    ("model.ssd.image_resizer.fixed_shape_resizer.height", "320", "320"),
    ("train_config.fine_tune_checkpoint", 'gs://b/"x"', '"gs://b/\\"x\\""'),
    ("train_config.fine_tune_checkpoint_version", "V2", "V2"),
    ("train_config.fine_tune_checkpoint_version", "2", "2"),
    ("train_config.data_augmentation_options[1].random_horizontal_flip.probability", "0.5", "0.5"),
])
def test_a_value_is_written_as_its_field_wants(path: str, value: str, literal: str) -> None:
    assert literal_of(path, value, SCHEMA) == literal


@pytest.mark.parametrize(("path", "found", "fix"), [
    ("train_config.batchsize", "TrainConfig has no field batchsize", "did you mean batch_size?"),
    ("train_config.batch_size.x", "uint32 has no field x", "use one of: its parent"),
    ("model.ssd", "it is a message, Ssd", "name a field inside it"),
    ("a..b", "it is no path", "names with dots between"),
    ("train_config.batch_size[x]", "it is no path", "names with dots between"),
])
def test_a_path_that_leads_nowhere(path: str, found: str, fix: str) -> None:
    with pytest.raises(ConfigError, match="setting") as caught:
        literal_of(path, "1", SCHEMA)
    assert found in caught.value.found
    assert fix in caught.value.fix


def test_the_schema_is_kept_and_read_back() -> None:
    assert parse_schema(to_json(SCHEMA)) == SCHEMA
    assert json.loads(to_json(SCHEMA))["release"] == "2.8.0.post1"


def enum_file() -> FileDescriptorProto:
    """A release whose configs have one field, ``a``, of an enum with gaps."""
    file = FileDescriptorProto(name="r.proto", package="object_detection.protos")
    enum = file.enum_type.add(name="E")
    for number, name in ((0, "NONE"), (2, "TWO"), (20, "TWENTY"), (-1, "LESS")):
        enum.value.add(name=name, number=number)
    root = file.message_type.add(name="TrainEvalPipelineConfig")
    root.field.add(name="a", number=1, type=14, label=1, type_name=".object_detection.protos.E")
    return file


ENUM_FILE = enum_file().SerializeToString()
ENUM_POOL = DescriptorPool()
ENUM_POOL.AddSerializedFile(ENUM_FILE)
ENUM_MESSAGE = GetMessageClass(ENUM_POOL.FindMessageTypeByName(ROOT))
ENUM_CONTEXT = replace(ANYWHERE, schema=read_schema({"r_pb2.py": f"D = p.AddSerializedFile({ENUM_FILE!r})"}, "mine"))


@given(
    st.builds("{}{}".format, st.sampled_from(["", "-", "+", "0", "00", "0x", "-0x"]), st.integers(0, 30))
    | st.sampled_from(["NONE", "TWO", "two", "2.0", "1e1", "9" * 30, "true", '"TWO"', '"2"']),
)
def test_enums_take_the_names_and_numbers_that_text_format_takes(value: str) -> None:
    try:
        text_format.Merge(f"a: {value}", ENUM_MESSAGE())
        wanted = []
    except text_format.ParseError:
        wanted = ["C202"]
    if not re.fullmatch("[+-]?00+", value):  # Zeros only are a zero to it, and octal to all else.
        assert [finding.code for finding in lint_config(f"a: {value}", "f", ENUM_CONTEXT)] == wanted


OLD = "DESCRIPTOR = _descriptor.FileDescriptor(name='x', serialized_pb={content!r})"
NEW = "DESCRIPTOR = _descriptor_pool.Default().AddSerializedFile({content!r})"


@pytest.mark.parametrize("form", [OLD, NEW])
def test_modules_of_old_and_new_protoc_are_read_and_not_run(form: str) -> None:
    file = FileDescriptorProto(name="p.proto", package="p")
    root = FileDescriptorProto(name="r.proto", package="object_detection.protos")
    root.message_type.add(name="TrainEvalPipelineConfig")
    message = file.message_type.add(name="M")
    message.oneof_decl.add(name="either")
    message.field.add(name="a", number=1, type=5, label=1, oneof_index=0)
    message.field.add(name="b", number=2, type=14, label=3, type_name=".p.M.E")
    message.enum_type.add(name="E").value.add(name="ONE", number=1)
    modules = {
        "p_pb2.py": f"raise SystemExit('it was run')\n{form.format(content=file.SerializeToString())}\n",
        "root_pb2.py": form.format(content=root.SerializeToString()),
        "other.py": "(",
        "object_detection/builders/model_builder.py":
            "if tf_version.is_tf2():\n  A_MAP = {'x_keras': 1}\n"
            "if tf_version.is_tf1():\n  A_MAP = {'x': 1}\n  B = {'y': 1}\n",
    }
    assert read_schema(modules, "mine") == Schema(
        "mine", {"p.M": {"a": Field("int32", False, "either"), "b": Field("p.M.E", True)}, ROOT: {}},
        {"p.M.E": {"ONE": 1}}, {"2": frozenset({"x_keras"}), "1": frozenset({"x"})},
    )


@given(st.binary(max_size=60) | st.text(max_size=60))
def test_any_module_is_read_or_refused_with_a_code(content: bytes | str) -> None:
    text = content if isinstance(content, str) else NEW.format(content=content)
    assert outcome(lambda: read_schema({"a_pb2.py": text}, "mine")) in ("", "C202")
