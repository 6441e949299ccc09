from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from hypothesis import given
from hypothesis import strategies as st

from gcpod.cache import cache_dir
from gcpod.errors import PackageError
from gcpod.packaging.protos import SUFFIX, modernise
from gcpod.packaging.source import fetch_source, read_tree
from gcpod.runtimes import find_runtime
from tests.data.making import outcome


@pytest.fixture(scope="module")
def old_modules() -> dict[str, str]:
    """Every generated module of the real sources, as the old protoc wrote it."""
    archive = fetch_source(find_runtime("tf2.12").object_detection, cache_dir())
    tree = read_tree(archive, ("object_detection",))["object_detection"]
    return {path: content.decode() for path, content in tree.items() if path.endswith(SUFFIX)}


def old_descriptor(source: str) -> bytes:
    start = source.index("serialized_pb=") + len("serialized_pb=")
    call = ast.parse(source[source.index("DESCRIPTOR = ") :].split("\n\n", 1)[0].rstrip()).body[0]
    found = [k.value for k in ast.walk(call) if isinstance(k, ast.keyword) and k.arg == "serialized_pb"]
    assert source[start] == "b"
    value = ast.literal_eval(found[0])
    assert isinstance(value, bytes)
    return value


def new_descriptor(source: str) -> bytes:
    [call] = [node for node in ast.walk(ast.parse(source))
              if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("AddSerializedFile")]
    value = ast.literal_eval(call.args[0])
    assert isinstance(value, bytes)
    return value


def test_real_modules_keep_their_descriptor(old_modules: dict[str, str]) -> None:
    assert len(old_modules) > 30
    for path, source in old_modules.items():
        assert "AddSerializedFile" not in source
        data = new_descriptor(modernise(source, path))
        assert data == old_descriptor(source)
        proto = FileDescriptorProto.FromString(data)
        assert proto.name == path.replace(SUFFIX, ".proto")
        imported = {line for line in modernise(source, path).splitlines() if line.startswith("from object_detection")}
        assert len(imported) == len(set(proto.dependency))


def test_a_module_of_today_is_left_alone(old_modules: dict[str, str]) -> None:
    for path, source in old_modules.items():
        new = modernise(source, path)
        assert modernise(new, path) == new


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
def test_any_descriptor_is_carried_over(data: bytes) -> None:
    source = f"from x.y import z_pb2 as z\nimport os\nDESCRIPTOR = f(name='n', serialized_pb={data!r})\n"
    new = modernise(source, "a/b_pb2.py")
    assert new_descriptor(new) == data
    assert "from x.y import z_pb2 as z\n" in new
    assert "import os" not in new
    assert "'a.b_pb2'" in new
