"""`gcpod package check`: the packages in the runtime itself, before anything is uploaded (K301 to K304)."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from gcpod.packaging.build import Packages
from gcpod.packaging.origin import ENTRY
from gcpod.packaging.requirements import compare, requirements_of
from gcpod.packaging.source import Runner, pip_error
from gcpod.runtimes import LAUNCHER, Runtime
from gcpod.status import Finding

Mode = Literal["container", "package"]
ENTRIES = (ENTRY, "object_detection.exporter_main_v2")
"""What the jobs of a run start with."""
_PROBE = Path(__file__).with_name("probe.py")
_BASICS = ("pycocotools.mask", "nets.mobilenet.mobilenet_v2", "object_detection.protos.pipeline_pb2")
_OF_SLIM = ("nets", "datasets", "deployment", "preprocessing")
_PROTOBUF = ("Descriptors cannot", "runtime_version", "Protobuf Gencode", "google.protobuf", "descriptor pool",
             "google/protobuf")
_BINARY = ("undefined symbol", "dtype size changed", "_ARRAY_API", "compiled using NumPy")
TIMEOUT_S = 600.0
"""How long an import of TensorFlow and a trainer may take; seconds on a machine that is not busy."""


def run_in_runtime(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command without what the user's environment says to Python, and without a GPU; collects its output."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PIP_"))}
    quiet = {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        return subprocess.run(list(command), capture_output=True, text=True, check=False, timeout=TIMEOUT_S,
                              env={**environment, **quiet})
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(list(command), 1, "", f"it took longer than {TIMEOUT_S:g} s")


def check_packages(
    packages: Packages, runtime: Runtime, python: Path, version: str, mode: Mode, *, entries: Sequence[str] = ENTRIES,
    computed_requires: bool = False, runner: Runner = run_in_runtime,
) -> list[Finding]:
    """Installs the packages as a job does, without an index, and imports what it imports.

    Args:
        packages: as built.
        runtime: what the jobs run in.
        python: the interpreter of the runtime's environment.
        version: of the Python that jobs run on, such as "3.11".
        mode: container: the launcher unpacks what the image lacks; package: pip installs all of them.
        entries: the modules that jobs start with; each is imported in a process of its own.
        computed_requires: whether the user's package has requirements that nobody knows.
        runner: runs commands.

    Returns:
        K301 where something cannot be imported, K302 for pycocotools, K303 for protobuf, K304 for requirements that
        would replace what the runtime has; empty when all is well.
    """
    sent = packages.paths if mode == "package" else packages.for_image
    found = [one for path in sent for one in compare(path, requirements_of(path), runtime, version)]
    if computed_requires and packages.training is not None:
        found.append(Finding("K304", "warning", packages.training.name, "its requirements are computed by its setup",
                             "write them as plain text, so that they can be compared with the runtime's"))
    with tempfile.TemporaryDirectory(prefix="gcpod-check-") as name:
        for number, entry in enumerate(entries):
            folder = Path(name) / str(number)
            folder.mkdir()
            if mode == "package":
                installed = folder if number == 0 else Path(name) / "0"
                if number == 0 and (broken := _install(sent, python, folder, runner)):
                    return [*found, *broken]
                request = {"launcher": "", "packages": [], "folder": str(installed)}
            else:
                request = {"launcher": str(LAUNCHER), "packages": list(map(str, sent)), "folder": str(folder)}
            modules = [*_BASICS, entry, *_tops(packages.training)] if number == 0 else [entry]
            found += _imports(python, {**request, "modules": modules, "entry": entry}, Path(name), runner)
    return list(dict.fromkeys(found))


def _install(sent: Sequence[Path], python: Path, folder: Path, runner: Runner) -> list[Finding]:
    """Findings for the packages that pip cannot install."""
    options = ["install", "--no-index", "--no-deps", "--no-build-isolation", "--no-compile", "--quiet", "--upgrade",
               "--disable-pip-version-check", "--target"]
    command = [str(python), "-I", "-m", "pip", *options, str(folder)]
    if runner([*command, *map(str, sent)]).returncode == 0:
        return []
    broken = []
    for path in sent:
        done = runner([*command, str(path)])
        if done.returncode != 0:
            lines = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["pip failed"]
            code = "K302" if path.name.startswith("pycocotools-") else "K301"
            cause = next((line for line in lines if "Error: " in line), pip_error(done, lines[-1]))
            broken.append(Finding(code, "error", path.name, f"pip cannot install it: {cause}", _fix(code)))
    return broken


def _tops(training: Path | None) -> list[str]:
    """Names that the user's package is imported by."""
    if training is None:
        return []
    with tarfile.open(training) as sdist:
        inside = [name.split("/", 1)[1] for name in sdist.getnames()]
    modules = {name for name in inside if name.endswith(".py") and name != "setup.py"}
    return sorted({name.split("/")[0].removesuffix(".py") for name in modules})


def _imports(python: Path, request: Mapping[str, object], scratch: Path, runner: Runner) -> Iterator[Finding]:
    asked, result = scratch / "request.json", scratch / "result.json"
    result.unlink(missing_ok=True)
    asked.write_text(json.dumps({**request, "result": str(result)}), encoding="utf-8")
    done = runner([str(python), "-I", str(_PROBE), str(asked)])
    if not result.is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        yield _finding({"module": str(request["entry"]), "error": "ended", "text": lines[-1], "missing": ""})
        return
    reasons = set()
    for answer in json.loads(result.read_text(encoding="utf-8")):
        # What one module lacks, those that import it lack too.
        reason = answer["missing"] or answer["text"]
        if answer["error"] and reason not in reasons:
            reasons.add(reason)
            yield _finding(answer)


def _finding(answer: Mapping[str, str]) -> Finding:
    missing, text = answer["missing"], " ".join(answer["text"].split())
    if missing.startswith("pycocotools") or answer["module"].startswith("pycocotools"):
        code = "K302"
    elif any(sign in text or sign in missing for sign in _PROTOBUF):
        code = "K303"
    elif any(sign in text for sign in _BINARY):
        code = "K304"
    else:
        code = "K301"
    found = f"no module {missing}" if missing else f"{answer['error']}: {text}"[:300]
    package = "slim" if missing.split(".")[0] in _OF_SLIM else ""
    return Finding(code, "error", answer["module"], f"it cannot be imported: {found}", _fix(code, package))


def _fix(code: str, package: str = "") -> str:
    return {
        "K301": f"use a source that holds all of {package or 'what is imported'}",
        "K302": "use the wheel that gcpod fetches, for the Python that jobs run on",
        "K303": "leave the generated modules to gcpod: give the .proto files, or a whole source archive",
        "K304": "take out what replaces a locked package of the runtime",
    }[code]
