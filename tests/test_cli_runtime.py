"""`gcpod runtime` at the command line, and the images' recipes: rendered from the data, and whole."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from gcpod import errors
from gcpod.localcloud.cloud import JobCloud
from gcpod.runtimes import LAUNCHER, Runtime, all_runtimes, find_runtime, image_python
from gcpod.runtimes.recipe import render_dockerfile, write_context

RECIPES = [(runtime, kind) for runtime in all_runtimes().values() for kind in runtime.recipes]
OK, USAGE = 0, 2


@pytest.mark.parametrize(("runtime", "kind"), RECIPES, ids=lambda one: getattr(one, "name", one))
def test_a_context_holds_what_its_dockerfile_copies(runtime: Runtime, kind: str, tmp_path: Path) -> None:
    files = write_context(runtime, kind, tmp_path / "image")
    text = (tmp_path / "image" / "Dockerfile").read_text(encoding="utf-8")
    assert text == render_dockerfile(runtime, kind)
    copied = re.findall(r"^COPY (\S+) ", text, flags=re.MULTILINE)
    assert copied == [runtime.lock.name, "launcher"]
    assert (tmp_path / "image" / runtime.lock.name).read_bytes() == runtime.lock.read_bytes()
    sent = {path.relative_to(tmp_path / "image" / "launcher") for path in files if "launcher" in path.parts}
    assert sent == {path.relative_to(LAUNCHER) for path in LAUNCHER.rglob("*.py")}
    assert text.startswith(f"# {runtime.images[kind]}: {runtime.recipes[kind].tensorflow or 'tensorflow-cpu=='}")
    assert runtime.recipes[kind].python in runtime.pythons
    assert image_python(runtime, f"eu-docker.pkg.dev/p/r/{runtime.images[kind]}:x") == runtime.recipes[kind].python
    assert 'ENTRYPOINT ["python", "-m", "gcpod_launcher"]' in text
    assert "--require-hashes" in text


def test_every_kind_of_machine_has_a_recipe_somewhere() -> None:
    assert {kind for _, kind in RECIPES} == {"cpu", "gpu", "tpu"}
    tpu = render_dockerfile(find_runtime("tf2.15"), "tpu")
    assert "uninstall --yes tensorflow-cpu" in tpu
    assert re.search(r"^ADD https://\S+/libtpu\.so /lib/libtpu\.so$", tpu, re.MULTILINE)


def test_what_is_known_of_a_runtime(gcpod: Any) -> None:
    assert [one["name"] for one in gcpod("runtime", "list", "--json").json] == list(all_runtimes())
    shown = gcpod("runtime", "show", "tf2.15").out
    assert all(word in shown for word in ("2.15.1", "gcpod-trainer-tf2.15-tpu", "tf2.15.lock.txt"))
    assert "gcpod-trainer-tf2.12-tpu (no recipe)" in gcpod("runtime", "show", "tf2.12").out
    data = gcpod("runtime", "show", "tf2.12", "--json").json
    assert data["recipes"]["gpu"]["tensorflow"] == "tensorflow==2.12.1"
    dockerfile = gcpod("runtime", "show", "tf2.12", "--dockerfile", "--kind", "gpu")
    assert dockerfile.out == render_dockerfile(find_runtime("tf2.12"), "gpu")


def test_an_image_is_prepared_as_a_folder(gcpod: Any, tmp_path: Path) -> None:
    made = gcpod("runtime", "build", "tf2.15", "--kind", "tpu", "--out", "image")
    assert made.code == OK
    assert "gcloud builds submit image --tag REGION-docker.pkg.dev/PROJECT/gcpod/gcpod-trainer-tf2.15-tpu" in made.out
    assert (tmp_path / "image" / "Dockerfile").is_file()


def test_an_image_is_made_on_a_local_cloud(gcpod: Any, quick_cloud: JobCloud) -> None:
    arguments = ("runtime", "build", "tf2.15", "--kind", "gpu", "--endpoint", quick_cloud.url)
    made = gcpod(*arguments, "--json")
    assert made.code == OK
    image = "local-docker.pkg.dev/local-project/gcpod/gcpod-trainer-tf2.15-gpu:latest"
    assert (made.json["image"], made.json["new"]) == (image, True)
    said = made.err.splitlines()
    assert said[2] == f'starting build "{made.json["build"]}"'
    assert said[-1] == "DONE"
    again = gcpod(*arguments)
    assert (again.code, again.err) == (OK, "")
    assert again.out == f"{image} {made.json['digest']} is there: build {made.json['build']} made it\n"
    once_more = gcpod(*arguments, "--again")
    assert (once_more.code, once_more.out) == (OK, f"{image} {made.json['digest']}\n")
    assert quick_cloud.build_database is not None
    assert [build.state for build in quick_cloud.build_database.all()] == ["SUCCESS"] * 2


def test_a_build_that_fails_is_one_line(gcpod: Any, tmp_path: Path) -> None:
    def fails(*_: object) -> Path:
        raise errors.PackageError("making the runtime", "tf2.15", "pip found no network", "try again")

    with JobCloud(tmp_path / "cloud", cache=tmp_path / "cache", environment_of=fails) as cloud:
        made = gcpod("runtime", "build", "tf2.15", "--endpoint", cloud.url)
    assert (made.code, made.out) == (errors.JobFailedError.exit_code, "")
    last = made.err.splitlines()[-1]
    assert last.startswith("gcpod: E108: building the image local-docker.pkg.dev/local-project/gcpod/gcpod-trainer-")
    assert "ended FAILURE: E104: making the runtime tf2.15: pip found no network; try again; read its log at" in last
    assert "Traceback" not in made.err


@pytest.mark.parametrize(("arguments", "code"), [
    (("build", "tf2.12", "--out", "x", "--again"), USAGE), (("build", "tf2.12", "--out", "x", "--local"), USAGE),
    (("build", "tf2.12", "--out", "x", "--json"), USAGE),
    (("build", "tf2.12", "--out", "x", "--endpoint", "http://127.0.0.1:1"), USAGE),
    (("build", "tf2.12"), errors.AuthError.exit_code), (("build", "tf9", "--local"), errors.SpecError.exit_code),
    (("build", "tf2.12", "--kind", "tpu", "--out", "x"), errors.SpecError.exit_code),
    (("show", "tf9"), errors.SpecError.exit_code),
])
def test_what_cannot_be_made_is_said(gcpod: Any, tmp_path: Path, arguments: tuple[str, ...], code: int) -> None:
    refused = gcpod("runtime", *arguments)
    assert (refused.code, refused.out) == (code, "")
    assert list(tmp_path.iterdir()) == []
