from __future__ import annotations

import re

import pytest

from gcpod.errors import SpecError
from gcpod.runtimes import LAUNCHER, all_runtimes, find_runtime, image_python, image_pythons, runtime_of_image

RUNTIME = find_runtime("tf2.12")
TRAINER = "gcpod-trainer-tf2.12-cpu"
PREBUILT = "us-docker.pkg.dev/vertex-ai/training/tf-cpu.2-12.py310"


def test_every_runtime_is_complete() -> None:
    for name, runtime in all_runtimes().items():
        assert runtime.name == name
        assert runtime.lock.is_file()
        assert re.fullmatch(r"[0-9a-f]{64}", runtime.object_detection.sha256)
        assert "==" in runtime.object_detection.requirement
        assert "==" in runtime.pycocotools
        assert {"cpu", "gpu", "tpu"} <= set(runtime.images)
        assert all(re.fullmatch(r"3\.\d+", version) for version in (*runtime.pythons, runtime.prebuilt_python))
        assert runtime.platforms
    assert (LAUNCHER / "gcpod_launcher" / "__main__.py").is_file()


def test_the_lock_pins_every_file_by_its_digest() -> None:
    for runtime in all_runtimes().values():
        text = runtime.lock.read_text(encoding="utf-8")
        whole = text.replace("\\\n", " ").splitlines()
        lines = [line for line in whole if line.strip() and not line.lstrip().startswith("#")]
        assert len(lines) > 30
        for line in lines:
            assert re.fullmatch(r"[A-Za-z0-9._-]+==\S+( ;.*?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*", line), line[:80]
        assert "://" not in re.sub(r"#.*", "", text)
        assert re.search(rf"(?m)^tensorflow(-cpu)?=={re.escape(runtime.tensorflow)} ", text)
        assert re.search(rf"(?m)^{re.escape(runtime.pycocotools)} ", text)


def test_an_unknown_runtime_is_refused() -> None:
    with pytest.raises(SpecError, match=r"choosing the runtime tf9: it is not known; use one of: tf2\.12"):
        find_runtime("tf9")


@pytest.mark.parametrize("uri", [
    f"europe-docker.pkg.dev/p/r/{TRAINER}", f"europe-docker.pkg.dev/p/r/{TRAINER}:v1", f"{TRAINER}:latest", TRAINER,
    f"localhost:5000/{TRAINER}", f"localhost:5000/{TRAINER}:v1@sha256:{'0' * 64}", f"r/{TRAINER}@sha256:{'0' * 64}",
    "x/gcpod-trainer-tf2.12-gpu", "x/gcpod-trainer-tf2.12-tpu", PREBUILT, f"{PREBUILT}:latest",
    "eu-docker.pkg.dev/vertex-ai/training/tf-gpu.2-12.py310:v2",
])
def test_an_image_names_its_runtime(uri: str) -> None:
    assert runtime_of_image(uri) is RUNTIME


@pytest.mark.parametrize("uri", ["", "python:3.11", f"{TRAINER}-mine", f"{TRAINER}/other", "a/b@sha256:0", ":", "@"])
def test_an_unknown_image_has_none(uri: str) -> None:
    assert runtime_of_image(uri) is None


def test_the_python_of_an_image() -> None:
    assert image_python(RUNTIME, f"x/{TRAINER}:v1") == RUNTIME.pythons[0]
    assert image_pythons(RUNTIME, f"x/{TRAINER}:v1") == RUNTIME.pythons
    assert image_python(RUNTIME, f"{PREBUILT}:latest") == "3.10"
    assert image_pythons(RUNTIME, f"{PREBUILT}:latest") == ("3.10",)
