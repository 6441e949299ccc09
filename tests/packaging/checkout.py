"""A folder in the shape of a tensorflow/models checkout, made of the pinned archive's own trees.

What a checkout has and the archive lacks is made: ``.proto`` files, written from the descriptors in the generated
modules, in whose place they stand; setup files; and tests, notebooks, samples and pictures, which no package may hold.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)

from gcpod.cache import cache_dir
from gcpod.packaging.protos import SUFFIX
from gcpod.packaging.source import fetch_source
from gcpod.packaging.tree import read_archive
from gcpod.runtimes import find_runtime

_KIND = FieldDescriptorProto
_TYPES = {
    _KIND.TYPE_DOUBLE: "double", _KIND.TYPE_FLOAT: "float", _KIND.TYPE_INT64: "int64", _KIND.TYPE_UINT64: "uint64",
    _KIND.TYPE_INT32: "int32", _KIND.TYPE_UINT32: "uint32", _KIND.TYPE_BOOL: "bool", _KIND.TYPE_STRING: "string",
    _KIND.TYPE_BYTES: "bytes", _KIND.TYPE_SINT32: "sint32", _KIND.TYPE_SINT64: "sint64",
}
_LABELS = {_KIND.LABEL_OPTIONAL: "optional", _KIND.LABEL_REQUIRED: "required", _KIND.LABEL_REPEATED: "repeated"}
_NO_MAXIMUM = 536_870_912
"""One past the largest field number, how a descriptor writes "to max"."""


def proto_text(file: FileDescriptorProto) -> str:
    """The ``.proto`` that a descriptor of syntax proto2 was made from, without its comments."""
    lines = ['syntax = "proto2";', f"package {file.package};", *(f'import "{name}";' for name in file.dependency)]
    lines += [line for enum in file.enum_type for line in _enum(enum)]
    lines += [line for message in file.message_type for line in _message(message)]
    lines += list(_extensions(file.extension))
    return "\n".join(lines) + "\n"


def _message(message: DescriptorProto) -> Iterator[str]:
    maps = {entry.name: entry for entry in message.nested_type if entry.options.map_entry}
    yield f"message {message.name} {{"
    for inner in message.nested_type:
        if inner.name not in maps:
            yield from _message(inner)
    for enum in message.enum_type:
        yield from _enum(enum)
    open_oneof = None
    for field in message.field:
        oneof = field.oneof_index if field.HasField("oneof_index") else None
        if oneof != open_oneof:
            yield from ["}"] if open_oneof is not None else []
            yield from [f"oneof {message.oneof_decl[oneof].name} {{"] if oneof is not None else []
            open_oneof = oneof
        entry = maps.get(field.type_name.rsplit(".", 1)[-1])
        if entry is not None:
            yield f"map<{_type(entry.field[0])}, {_type(entry.field[1])}> {field.name} = {field.number};"
        else:
            yield _field(field, "" if oneof is not None else _LABELS[field.label] + " ")
    yield from ["}"] if open_oneof is not None else []
    for span in message.extension_range:
        yield f"extensions {span.start} to {'max' if span.end == _NO_MAXIMUM else span.end - 1};"
    for reserved in message.reserved_range:
        yield f"reserved {reserved.start} to {reserved.end - 1};"
    yield from _extensions(message.extension)
    yield "}"


def _extensions(fields: Iterable[FieldDescriptorProto]) -> Iterator[str]:
    for field in fields:
        yield f"extend {field.extendee} {{ {_field(field, _LABELS[field.label] + ' ')} }}"


def _field(field: FieldDescriptorProto, label: str) -> str:
    options = [f"{name.name} = {str(value).lower()}" for name, value in field.options.ListFields()]
    if field.HasField("default_value"):
        text = field.type in (_KIND.TYPE_STRING, _KIND.TYPE_BYTES)
        options.append(f"default = {json.dumps(field.default_value) if text else field.default_value}")
    shown = f" [{', '.join(options)}]" if options else ""
    return f"{label}{_type(field)} {field.name} = {field.number}{shown};"


def _type(field: FieldDescriptorProto) -> str:
    return _TYPES.get(field.type) or field.type_name


def _enum(enum: EnumDescriptorProto) -> Iterator[str]:
    yield f"enum {enum.name} {{"
    yield from (f"{value.name} = {value.number};" for value in enum.value)
    yield "}"


def pinned_trees() -> dict[str, dict[str, bytes]]:
    """The trees of the pinned archive, downloaded once and then cached."""
    archive = fetch_source(find_runtime("tf2.12").object_detection, cache_dir())
    tops = ("object_detection", "slim")
    tree = read_archive(archive, lambda path: path.startswith(tops) and "/" in path)
    return {top: {path: content for path, content in tree.items() if path.split("/")[0] == top} for top in tops}


NOISE = {
    "object_detection/model_lib_test.py": "raise SystemExit('no job imports tests')\n",
    "object_detection/colab_tutorials/tutorial.ipynb": "{}",
    "object_detection/samples/configs/ssd.config": "model {}\n",
    "object_detection/test_images/image1.jpg": "a picture",
    "object_detection/README.md": "# words\n",
    "object_detection/protos/BUILD": "proto_library()\n",
    "object_detection/utils/__pycache__/x.cpython-311.pyc": "compiled",
    "slim/slim_walkthrough.ipynb": "{}",
    "slim/train_image_classifier.py": "raise SystemExit('a script')\n",
    "slim/nets/vgg_test.py": "raise SystemExit('no job imports tests')\n",
    "slim/setup.py": "from setuptools import find_packages, setup\n\n"
                     "setup(name='slim', version='0.1', packages=find_packages(), description='slim')\n",
}
"""What stands in a checkout beside the modules that jobs import."""


def make_checkout(models: Path, descriptors: dict[str, bytes], trees: dict[str, dict[str, bytes]]) -> Path:
    """Fills a folder and returns its ``research`` folder.

    Args:
        models: does not exist yet.
        descriptors: by the path of the generated module that each came from.
        trees: of the pinned archive.
    """
    research = models / "research"
    content = {path: data for tree in trees.values() for path, data in tree.items() if not path.endswith(SUFFIX)}
    for path, descriptor in descriptors.items():
        text = proto_text(FileDescriptorProto.FromString(descriptor))
        content[path.removesuffix(SUFFIX) + ".proto"] = text.encode()
    for path, data in {**content, **{path: text.encode() for path, text in NOISE.items()}}.items():
        target = research / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    (models / "README.md").write_text("# models\n")
    return research
