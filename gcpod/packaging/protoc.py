"""`.proto` files compiled to descriptors, by a protoc of this machine or one that is fetched for it.

A checkout of tensorflow/models has no generated modules. protoc tells what a ``.proto`` means, protos.py writes the
module; so neither the version of protoc nor the form of module it would write plays a part.
"""

from __future__ import annotations

import re
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gcpod.errors import DataError, PackageError
from gcpod.packaging.protos import SUFFIX, render, split_set
from gcpod.packaging.source import Runner, pip_error, put_in_place, run_command

LOCK = Path(__file__).with_name("protoc.lock.txt")
"""grpcio-tools, a protoc in a wheel, with the digests of its files; never installed into the client's environment."""
_RUN = (
    "import sys; sys.path.insert(0, sys.argv[1]); from grpc_tools import protoc; "
    "sys.exit(protoc.main(['protoc', *sys.argv[2:], '-I' + sys.argv[1] + '/grpc_tools/_proto']))"
)


def compile_protos(
    protos: Mapping[str, bytes], cache: Path, runner: Runner = run_command,
    which: Callable[[str], str | None] = shutil.which,
) -> dict[str, bytes]:
    """The generated module of each ``.proto`` file.

    Args:
        protos: path below the folder that imports start from, such as ``object_detection/protos/ssd.proto``.
        cache: the user's cache directory, where protoc is kept once it was fetched.
        runner: runs protoc and pip.
        which: finds programs.

    Returns:
        Path to content, such as ``object_detection/protos/ssd_pb2.py``.

    Raises:
        PackageError: K303, protoc refuses a file; or there is no protoc and it cannot be fetched.
    """
    found = which("protoc")
    protoc = [found] if found else [sys.executable, "-I", "-c", _RUN, str(ensure_protoc(cache, runner))]
    with tempfile.TemporaryDirectory(prefix="gcpod-protos-") as name:
        folder, out = Path(name) / "in", Path(name) / "out"
        for path, content in protos.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        options = [f"--proto_path={folder}", f"--descriptor_set_out={out}", "--include_imports"]
        done = runner([*protoc, *options, *sorted(protos)])
        if done.returncode != 0 or not out.is_file():
            raise _refused(protos, done.stderr.replace(f"{folder}/", ""))
        data = out.read_bytes()
    try:
        descriptors = split_set(data)
        return {_module(path): render(descriptors[path], _module(path)).encode("ascii") for path in sorted(protos)}
    except (DataError, KeyError, UnicodeDecodeError) as e:
        raise _refused(protos, f"protoc wrote no whole descriptors ({e})") from e


def _module(path: str) -> str:
    return path.removesuffix(".proto").replace("-", "_") + SUFFIX


def _refused(protos: Mapping[str, bytes], stderr: str) -> PackageError:
    lines = [line for line in stderr.splitlines() if line.strip()] or ["protoc failed"]
    told = next((line for line in lines if ".proto:" in line and "warning:" not in line), lines[-1])
    return PackageError("compiling", f"{len(protos)} .proto files", told, "correct the .proto, or the checkout",
                        code="K303")


def ensure_protoc(cache: Path, runner: Runner = run_command) -> Path:
    """The folder that holds the package grpc_tools for this Python, fetched by pip at its first use.

    Raises:
        PackageError: pip fails.
    """
    version = re.findall(r"^grpcio-tools==(\S+)", LOCK.read_text(encoding="ascii"), flags=re.MULTILINE)[0]
    folder = cache / "tools" / f"grpcio-tools-{version}-{sys.implementation.cache_tag}-{sysconfig.get_platform()}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as aside:
            done = runner(_install(Path(aside) / "built"))
            if done.returncode != 0:
                raise PackageError("fetching protoc", f"grpcio-tools {version}", pip_error(done, "pip brought no file"),
                                   "connect once, or install protoc (in Debian: protobuf-compiler)")
            put_in_place(Path(aside) / "built", folder)
    return folder


def _install(target: Path) -> Sequence[str]:
    return [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
            "--no-compile", "--only-binary", ":all:", "--require-hashes", "--requirement", str(LOCK),
            "--target", str(target)]
