"""Files that machines other than this one read: they must at least hold together."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from gcpod.jobs.machines import kind_of
from gcpod.runtimes import all_runtimes, find_runtime
from gcpod.spec import Spec

ROOT = Path(__file__).resolve().parents[1]


def test_cloud_build_makes_every_image_it_pushes_and_in_order() -> None:
    steps = yaml.safe_load((ROOT / "cloudbuild.yaml").read_text(encoding="utf-8"))["steps"]
    seen = {"-"}
    for step in steps:
        assert set(step.get("waitFor", [])) <= seen
        seen.add(step["id"])
    pushed = {image.rsplit("/", 1)[-1] for step in steps if step["args"][0] == "push" for image in step["args"][1:]}
    tags = [argument for step in steps for argument in step["args"] if argument.startswith("--tag=")]
    built = {tag.rsplit("/", 1)[-1] for tag in tags}
    known = {f"{image}:latest" for runtime in all_runtimes().values() for image in runtime.images.values()}
    assert pushed == built
    assert pushed <= known


def test_cloud_build_makes_the_images_of_recipes_that_there_are() -> None:
    steps = yaml.safe_load((ROOT / "cloudbuild.yaml").read_text(encoding="utf-8"))["steps"]
    [script] = [step["args"][1] for step in steps if step["id"] == "recipes"]
    made = re.search(r"for kind in ([\w ]+); do \S+ runtime build (\S+) --kind \$\$kind --out (\S+)/\$\$kind;", script)
    assert made is not None
    runtime = all_runtimes()[made[2]]
    assert set(made[1].split()) <= set(runtime.recipes)
    folders = {f"{made[3]}/{kind}": runtime.images[kind] for kind in made[1].split()}
    built = {step["args"][-1]: step["args"][1].rpartition("/")[2] for step in steps if step["args"][0] == "build"}
    assert built == {folder: f"{image}:latest" for folder, image in folders.items()}


def test_cloud_build_makes_every_image_that_a_default_spec_asks_for() -> None:
    steps = yaml.safe_load((ROOT / "cloudbuild.yaml").read_text(encoding="utf-8"))["steps"]
    made = {image.rsplit("/", 1)[-1].partition(":")[0] for step in steps if step["args"][0] == "push"
            for image in step["args"][1:]}
    spec = Spec()
    kinds = {kind_of(job.machine) for job in (spec.train, spec.eval, spec.export)}
    assert kinds == {"tpu", "gpu", "cpu"}
    assert {find_runtime(spec.runtime.name).images[kind] for kind in kinds} <= made


def test_every_link_and_file_the_documents_name_exists() -> None:
    for document in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (document.parent / target).exists(), target
