"""Findings K301 to K304, in an environment that has no TensorFlow but what the launcher asks of it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from gcpod.errors import PackageError
from gcpod.packaging.build import Packages
from gcpod.packaging.check import Mode, check_packages, run_in_runtime
from gcpod.packaging.requirements import locked, requirements_of
from gcpod.packaging.sdist import Sdist, pack
from gcpod.runtimes import LAUNCHER, find_runtime

from .archives import archive, write

RUNTIME = find_runtime("tf2.12")
ENTRY = "object_detection.model_main_tf2"
OBJECT_DETECTION = {
    "object_detection/__init__.py": "", "object_detection/model_main_tf2.py": "import nets.mobilenet.mobilenet_v2\n",
    "object_detection/protos/pipeline_pb2.py": "",
}
SLIM = {"nets/__init__.py": "", "nets/mobilenet/mobilenet_v2.py": ""}
COCO = {"pycocotools/__init__.py": "", "pycocotools/mask.py": ""}
TENSORFLOW = {
    "tensorflow/__init__.py": """
import shutil
class io:
    class gfile:
        @staticmethod
        def copy(source, target, overwrite): shutil.copy(source, target)
class errors:
    class OpError(Exception): pass
""",
    "tensorflow/python/ops/control_flow_ops.py": "case = cond = while_loop = Assert = None\n",
}
MODES: tuple[Mode, ...] = ("container", "package")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with pip, setuptools and pycocotools' modules, and the part of TensorFlow that copies files."""
    folder = tmp_path_factory.mktemp("runtime") / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    libraries = next((folder / "lib").glob("python*")) / "site-packages"
    tools = next(path for path in sys.path if path.endswith("site-packages"))
    write(libraries, {**TENSORFLOW, **COCO, "tools.pth": f"{tools}\n"})
    return folder / "bin" / "python"


def sdist(folder: Path, name: str, files: dict[str, str], *requires: str) -> Path:
    made = Sdist(name, "1.0", {path: text.encode() for path, text in files.items()}, requires).labelled()
    path = folder / made.filename
    path.write_bytes(pack(made))
    return path


def wheel(folder: Path, metadata: str = "") -> Path:
    path = folder / "pycocotools-2.0.11-py3-none-any.whl"
    about = {"METADATA": f"Metadata-Version: 2.1\nName: pycocotools\nVersion: 2.0.11\n{metadata}",
             "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n", "RECORD": ""}
    with zipfile.ZipFile(path, "w") as out:
        for name, text in COCO.items():
            out.writestr(name, text)
        for name, text in about.items():
            out.writestr(f"pycocotools-2.0.11.dist-info/{name}", text)
    return path


def packages(folder: Path, training: Path | None = None, **parts: dict[str, str]) -> Packages:
    launcher = {path.relative_to(LAUNCHER).as_posix(): path.read_text() for path in LAUNCHER.rglob("*.py")}
    object_detection = {**OBJECT_DETECTION, **parts.get("object_detection", {})}
    return Packages(
        sdist(folder, "object_detection", object_detection), sdist(folder, "slim", parts.get("slim", SLIM)),
        wheel(folder), sdist(folder, "gcpod_launcher", launcher), training,
    )


def codes(built: Packages, python: Path, mode: Mode = "container", computed: bool = False) -> list[tuple[str, str]]:
    found = check_packages(built, RUNTIME, python, "3.11", mode, entries=(ENTRY,), computed_requires=computed)
    assert all("\n" not in str(finding) and finding.fix for finding in found)
    return [(finding.code, finding.severity) for finding in found]


@pytest.mark.long
@pytest.mark.parametrize("mode", MODES)
def test_whole_packages_have_no_findings(python: Path, tmp_path: Path, mode: Mode) -> None:
    files = {"trainer/__init__.py": "import object_detection, nets\n", "alone.py": ""}
    own = sdist(tmp_path, "trainer", files, "numpy")
    assert codes(packages(tmp_path, own), python, mode) == []


def test_slim_without_nets_is_k301(python: Path, tmp_path: Path) -> None:
    built = packages(tmp_path, slim={"datasets/__init__.py": ""})
    [finding] = check_packages(built, RUNTIME, python, "3.11", "container", entries=(ENTRY,))
    assert (finding.code, finding.severity) == ("K301", "error")
    assert finding.found == "it cannot be imported: no module nets"
    assert "slim" in finding.fix


@pytest.mark.parametrize(("part", "code"), [
    ({"object_detection/model_main_tf2.py": "import object_detection.absent"}, "K301"),
    ({"object_detection/model_main_tf2.py": "raise SystemExit(3)"}, "K301"),
    ({"object_detection/model_main_tf2.py": "import os; os._exit(7)"}, "K301"),
    ({"object_detection/model_main_tf2.py": "import pycocotools._mask"}, "K302"),
    ({"object_detection/protos/pipeline_pb2.py": "raise TypeError('Descriptors cannot be created directly.')"}, "K303"),
    ({"object_detection/protos/pipeline_pb2.py": "from google.protobuf import runtime_version_of_tomorrow"}, "K303"),
    ({"object_detection/__init__.py": "raise ImportError('libx.so: undefined symbol: _ZN10tensorflow')"}, "K304"),
])
def test_what_cannot_be_imported_has_its_code(python: Path, tmp_path: Path, part: dict[str, str], code: str) -> None:
    assert codes(packages(tmp_path, object_detection=part), python) == [(code, "error")]


def test_the_users_own_package_is_imported_too(python: Path, tmp_path: Path) -> None:
    own = sdist(tmp_path, "trainer", {"trainer/__init__.py": "import what_nobody_has\n"})
    [finding] = check_packages(packages(tmp_path, own), RUNTIME, python, "3.11", "container", entries=(ENTRY,))
    assert (finding.code, finding.where) == ("K301", "trainer")
    assert "no module what_nobody_has" in finding.found


def test_an_archive_that_the_launcher_refuses_is_k301(python: Path, tmp_path: Path) -> None:
    built = packages(tmp_path)
    hostile = archive(tmp_path / "slim-1.0.tar.gz", ("slim-1.0/PKG-INFO", b""), ("../../evil.py", b""))
    changed = replace(built, slim=hostile)
    [finding] = check_packages(changed, RUNTIME, python, "3.11", "container", entries=(ENTRY,))
    assert (finding.code, finding.severity) == ("K301", "error")
    assert "its member '../../evil.py' leads outside" in finding.found


def test_a_damaged_package_is_an_error_of_one_line(python: Path, tmp_path: Path) -> None:
    built = packages(tmp_path)
    for path, data in ((built.slim, built.slim.read_bytes()[:60]), (built.slim, b""), (built.pycocotools, b"PK")):
        path.write_bytes(data)
        with pytest.raises(PackageError, match="E104: reading") as caught:
            check_packages(built, RUNTIME, python, "3.11", "package")
        assert "\n" not in str(caught.value)


@pytest.mark.long
def test_pycocotools_that_pip_cannot_install_is_k302(python: Path, tmp_path: Path) -> None:
    built = packages(tmp_path)
    # Its own source asks for Cython before it does anything, and the runtime has none.
    members = {"setup.py": b"import Cython_that_is_not_there\n", "PKG-INFO": b""}
    source = archive(tmp_path / "pycocotools-2.0.11.tar.gz",
                     *((f"pycocotools-2.0.11/{name}", text) for name, text in members.items()))
    found = check_packages(replace(built, pycocotools=source), RUNTIME, python, "3.11", "package", entries=(ENTRY,))
    assert [(finding.code, finding.where) for finding in found] == [("K302", "pycocotools-2.0.11.tar.gz")]
    assert "Cython" in found[0].found


@pytest.mark.parametrize(("requirement", "expected"), [
    ("tensorflow>=2.13", [("K304", "error")]),
    ("tensorflow-gpu==2.11", [("K304", "error")]),
    ("tensorflow @ https://example.com/tensorflow.whl", [("K304", "error")]),
    ("protobuf<4", [("K304", "error")]),
    ("NumPy>=2", [("K304", "error")]),
    ("albumentations", [("K304", "warning")]),
    ("tensorflow", []), ("tensorflow>=2.10,<2.13", []), ("numpy", []), ("tf_slim>=1.1", []),
    ("numpy>=2; python_version < '3.9'", []), ("pywin32; sys_platform == 'win32'", []),
    ("numpy>=2; extra == 'new'", []), ("what is this?", []),
])
def test_a_requirement_that_would_replace_tensorflow_is_k304(
    tmp_path: Path, requirement: str, expected: list[tuple[str, str]],
) -> None:
    own = sdist(tmp_path, "trainer", {"trainer/__init__.py": ""}, requirement)

    def fine(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        (Path(command[-1]).parent / "result.json").write_text("[]")
        return subprocess.CompletedProcess(list(command), 0, "", "")

    found = check_packages(packages(tmp_path, own), RUNTIME, Path("python"), "3.11", "container", runner=fine)
    assert [(finding.code, finding.severity) for finding in found] == expected
    assert requirements_of(own) == (requirement,)


def test_requirements_that_nobody_can_read_are_said(python: Path, tmp_path: Path) -> None:
    own = sdist(tmp_path, "trainer", {"trainer/__init__.py": ""})
    assert codes(packages(tmp_path, own), python, computed=True) == [("K304", "warning")]


def test_a_wheels_requirements_are_read(tmp_path: Path) -> None:
    assert requirements_of(wheel(tmp_path, "Requires-Dist: numpy\nRequires-Dist: x>1\n")) == ("numpy", "x>1")
    assert requirements_of(wheel(tmp_path)) == ()


def test_the_lock_is_read_whole() -> None:
    known = locked(RUNTIME)
    assert known["tensorflow"] == known["tensorflow-cpu"] == known["tensorflow-gpu"] == RUNTIME.tensorflow
    assert known["pycocotools"] == RUNTIME.pycocotools.split("==")[1]
    assert all(canonicalize_name(name) == name for name in known)
    assert len(known) > 35


def test_the_users_environment_does_not_reach_the_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(write(tmp_path, {"sitecustomize.py": "print('reached')"})))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/")
    shown = "import os; print([key for key in os.environ if key.startswith(('PYTHON', 'PIP_'))])"
    done = run_in_runtime([sys.executable, "-c", shown])
    assert done.stdout == "['PYTHONDONTWRITEBYTECODE']\n"
