from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from hypothesis import given
from hypothesis import strategies as st

from gcpod.cache import cache_dir
from gcpod.errors import PackageError
from gcpod.packaging.protos import SUFFIX, modernise, render
from gcpod.packaging.source import fetch_source
from gcpod.packaging.tree import read_archive
from gcpod.runtimes import find_runtime
from gcpod.wire import delimited
from tests.data.making import outcome
from tests.packaging.conftest import descriptor_in


@pytest.fixture(scope="module")
def old_modules() -> dict[str, str]:
    """Every generated module of the real sources, as the old protoc wrote it."""
    archive = fetch_source(find_runtime("tf2.12").object_detection, cache_dir())
    tree = read_archive(archive, lambda path: path.startswith("object_detection/") and path.endswith(SUFFIX))
    return {path: content.decode() for path, content in tree.items()}


def old_descriptor(source: str) -> bytes:
    start = source.index("serialized_pb=") + len("serialized_pb=")
    call = ast.parse(source[source.index("DESCRIPTOR = ") :].split("\n\n", 1)[0].rstrip()).body[0]
    found = [k.value for k in ast.walk(call) if isinstance(k, ast.keyword) and k.arg == "serialized_pb"]
    assert source[start] == "b"
    value = ast.literal_eval(found[0])
    assert isinstance(value, bytes)
    return value


def test_real_modules_keep_their_descriptor(old_modules: dict[str, str]) -> None:
    assert len(old_modules) > 30
    for path, source in old_modules.items():
        assert "AddSerializedFile" not in source
        data = descriptor_in(modernise(source, path))
        assert data == old_descriptor(source)
        proto = FileDescriptorProto.FromString(data)
        assert proto.name == path.replace(SUFFIX, ".proto")
        imported = {line for line in modernise(source, path).splitlines() if line.startswith("from object_detection")}
        assert len(imported) == len(set(proto.dependency))


def test_a_module_of_today_keeps_its_text(old_modules: dict[str, str]) -> None:
    for path, source in old_modules.items():
        new = modernise(source, path)
        assert modernise(new, path) == new


NEWER = """
from google.protobuf import descriptor_pool as _descriptor_pool
from google.protobuf import runtime_version as _runtime_version
from google.protobuf.internal import builder as _builder
_runtime_version.ValidateProtobufRuntimeVersion(_runtime_version.Domain.PUBLIC, 99, 0, 0, '', 'a/b.proto')
DESCRIPTOR = _descriptor_pool.Default().AddSerializedFile({0!r})
_globals = globals()
_builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, _globals)
"""


def test_what_a_protoc_newer_than_the_runtime_wrote_asks_for_no_version() -> None:
    descriptor = FileDescriptorProto(name="a/b.proto", package="a", dependency=["x/y-z.proto", "top.proto"])
    descriptor.public_dependency.append(0)
    descriptor.message_type.add(name="M").field.add(name="f", number=1, type=9, label=1, json_name="f")
    new = modernise(NEWER.format(descriptor.SerializeToString()), "a/b_pb2.py")
    assert "runtime_version" not in new
    assert [line for line in new.splitlines() if "import" in line][2:] == [
        "from x import y_z_pb2 as x_dot_y__z__pb2", "from x.y_z_pb2 import *", "import top_pb2 as top__pb2",
    ]
    del descriptor.message_type[0].field[0]
    descriptor.message_type[0].field.add(name="f", number=1, type=9, label=1)
    assert descriptor_in(new) == descriptor.SerializeToString()


@pytest.mark.parametrize("name", ["a b.proto", "a/b; import os", "../x.proto", "", "a//b.proto", "a/\n.proto", "é/x y"])
def test_no_descriptor_writes_statements_into_a_module(name: str) -> None:
    source = NEWER.format(FileDescriptorProto(name="n", dependency=[name]).SerializeToString())
    with pytest.raises(PackageError, match=r"K303: .*its descriptor is damaged"):
        modernise(source, "a/b_pb2.py")


def test_a_descriptor_nested_too_deep_is_refused() -> None:
    data = b""
    for _ in range(5000):
        data = delimited(3, data)
    with pytest.raises(PackageError, match="its descriptor is damaged"):
        modernise(NEWER.format(delimited(4, data)), "a/b_pb2.py")


USE = """
from object_detection.protos import pipeline_pb2, ssd_pb2
from google.protobuf import text_format
config = text_format.Parse("model { ssd { num_classes: 3 } }", pipeline_pb2.TrainEvalPipelineConfig())
assert config.model.ssd.num_classes == 3
assert isinstance(config.model.ssd, ssd_pb2.Ssd)
print(config.model.ssd.DESCRIPTOR.full_name)
"""


def test_the_new_modules_work_with_the_protobuf_installed_here(old_modules: dict[str, str], tmp_path: Path) -> None:
    for path, source in old_modules.items():
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(modernise(source, path), encoding="utf-8")
    done = subprocess.run([sys.executable, "-c", USE], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("object_detection.protos.Ssd\n", "")


@pytest.mark.parametrize(("source", "found"), [
    ("", "it holds no serialized descriptor"),
    ("x = 1", "it holds no serialized descriptor"),
    ("f(serialized_pb='text')", "it holds no serialized descriptor"),
    ("f(serialized_pb=g(b'x'))", "it holds no serialized descriptor"),
    ("def (", "it is no Python"),
    ("\0", "it is no Python"),
    ("(" * 100_000, "it is no Python"),
    ("-" * 100_000 + "1", "it is no Python"),
])
def test_what_is_no_generated_module_is_refused(source: str, found: str) -> None:
    with pytest.raises(PackageError) as caught:
        modernise(source, "a/b_pb2.py")
    assert str(caught.value) == f"K303: rewriting the protobuf module a/b_pb2.py: {found}; use a whole source archive"


@given(st.text() | st.text("serialized_pb=b'x'()f\\\n"))
def test_any_text_is_a_module_or_an_error(source: str) -> None:
    assert outcome(lambda: modernise(source, "a_pb2.py")) in ("", "K303")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_descriptor_or_an_error(data: bytes) -> None:
    source = f"from x.y import z_pb2 as z\nimport os\nDESCRIPTOR = f(name='n', serialized_pb={data!r})\n"
    if outcome(lambda: modernise(source, "a/b_pb2.py")) != "K303":
        new = modernise(source, "a/b_pb2.py")
        assert "import os" not in new
        assert "'a.b_pb2'" in new
        assert modernise(new, "a/b_pb2.py") == new


_LETTERS = st.text("ab_", min_size=1)
_FIELDS = st.builds(FieldDescriptorProto, name=_LETTERS, number=st.integers(1, 1000), json_name=st.none() | _LETTERS,
                    default_value=st.none() | st.text())
_SOME = st.lists(_FIELDS, max_size=2)
_MESSAGES = st.recursive(
    st.builds(DescriptorProto, name=_LETTERS, field=_SOME),
    lambda inner: st.builds(DescriptorProto, nested_type=st.lists(inner, max_size=2), extension=_SOME), max_leaves=3,
)


_FILES = st.builds(FileDescriptorProto, name=_LETTERS, message_type=st.lists(_MESSAGES, max_size=2), extension=_SOME)


@given(_FILES)
def test_all_of_a_descriptor_but_its_json_names_is_carried_over(proto: FileDescriptorProto) -> None:
    found = FileDescriptorProto.FromString(descriptor_in(render(proto.SerializeToString(), "a/b_pb2.py")))
    waiting: list[FileDescriptorProto | DescriptorProto] = [proto]
    for one in waiting:
        waiting += one.message_type if isinstance(one, FileDescriptorProto) else one.nested_type
        for field in (*one.extension, *(one.field if isinstance(one, DescriptorProto) else ())):
            field.ClearField("json_name")
    assert found == proto
