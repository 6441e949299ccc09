from __future__ import annotations

import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from gcpod.cache import cache_dir
from gcpod.errors import PackageError
from gcpod.packaging.protoc import LOCK, compile_protos, ensure_protoc
from gcpod.packaging.source import run_command

from .conftest import Checkout, descriptor_in

ONE = {"p/one.proto": b'syntax = "proto2"; package p; message One { optional int32 some_number = 1; }'}


def nothing(name: str) -> None:
    return None


def test_the_protos_of_a_checkout_give_the_modules_of_the_pinned_archive(checkout: Checkout) -> None:
    protos = {path.relative_to(checkout.research).as_posix(): path.read_bytes()
              for path in checkout.research.rglob("*.proto")}
    made = compile_protos(protos, cache_dir())
    assert len(made) > 30
    assert {path: content.decode() for path, content in made.items()} == checkout.modules


def test_another_protoc_gives_the_same(tmp_path: Path) -> None:
    """A protoc on the path that writes JSON names, which the module shall not depend on, into its descriptors."""
    descriptor = FileDescriptorProto(name="p/one.proto", package="p")
    descriptor.message_type.add(name="One").field.add(name="some_number", number=1, type=5, label=1)
    plain = descriptor.SerializeToString()
    descriptor.message_type[0].field[0].json_name = "someNumber"
    data = FileDescriptorSet(file=[descriptor]).SerializeToString()
    program = tmp_path / "protoc"
    program.write_text(
        f"#!{sys.executable}\nimport sys\n[out] = [a.partition('=')[2] for a in sys.argv if 'set_out' in a]\n"
        f"open(out, 'wb').write({data!r})\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    other = compile_protos(ONE, tmp_path, which=lambda name: str(program))
    assert descriptor_in(other["p/one_pb2.py"].decode()) == plain
    assert other == compile_protos(ONE, cache_dir(), which=nothing)


def test_a_proto_may_import_googles_own() -> None:
    text = b'syntax = "proto2"; import "google/protobuf/any.proto"; message M { optional google.protobuf.Any a = 1; }'
    [(path, module)] = compile_protos({"p/with-any.proto": text}, cache_dir(), which=nothing).items()
    assert path == "p/with_any_pb2.py"
    assert b"from google.protobuf import any_pb2 as google_dot_protobuf_dot_any__pb2\n" in module


@pytest.mark.parametrize(("text", "words"), [
    (b'syntax = "proto2"; message M { optional int32 a = ; }', "p/bad.proto:1:"),
    (b'import "p/absent.proto";', "p/absent.proto"),
    (b"\xff\x00", "p/bad.proto:1:"),
])
def test_a_wrong_proto_is_named_with_its_line(text: bytes, words: str) -> None:
    with pytest.raises(PackageError) as caught:
        compile_protos({**ONE, "p/bad.proto": text}, cache_dir(), which=nothing)
    assert str(caught.value).startswith("K303: compiling 2 .proto files: ")
    assert words in str(caught.value)
    assert "/tmp" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("script", [
    "exit 1", "exit 0", "echo oops >&2; exit 3",
    'for a; do f=${a#*set_out=}; [ "$f" != "$a" ] && echo damaged > "$f"; done; true',
    'for a; do f=${a#*set_out=}; [ "$f" != "$a" ] && : > "$f"; done; true',
])
def test_a_protoc_that_fails_is_an_error_of_one_line(tmp_path: Path, script: str) -> None:
    program = tmp_path / "protoc"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    with pytest.raises(PackageError, match=r"K303: compiling 1 \.proto files: ") as caught:
        compile_protos(ONE, tmp_path, which=lambda name: str(program))
    assert "\n" not in str(caught.value)


def test_protoc_is_fetched_once_by_its_digests_and_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    calls: list[Sequence[str]] = []

    def failing(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        return run_command([sys.executable, "-c", "import sys; sys.exit('ERROR: no such version')"])

    with pytest.raises(PackageError, match=r"fetching protoc grpcio-tools [\d.]+: no such version; connect once"):
        ensure_protoc(tmp_path, failing)
    assert "--require-hashes" in calls[0]
    assert list((tmp_path / "tools").iterdir()) == []

    def working(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        (Path(command[-1]) / "grpc_tools").mkdir(parents=True)
        return run_command(["true"])

    folder = ensure_protoc(tmp_path, working)
    assert ensure_protoc(tmp_path, failing) == folder
    assert len(calls) == 2
    assert LOCK.read_text().count("--hash=sha256:") > 30
