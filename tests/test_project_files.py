"""Files that machines other than this one read: they must at least hold together."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from gcpod.runtimes import FOLDER, all_runtimes

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


def test_the_dockerfile_copies_what_there_is_and_starts_the_launcher() -> None:
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    copied = re.findall(r"^COPY (\S+) ", text, flags=re.MULTILINE)
    assert all((FOLDER / name).exists() for name in copied)
    assert {runtime.lock.name for runtime in all_runtimes().values()} <= set(copied)
    assert (FOLDER / "launcher" / "gcpod_launcher" / "__main__.py").exists()
    assert 'ENTRYPOINT ["python", "-m", "gcpod_launcher"]' in text


def test_every_link_and_file_the_documents_name_exists() -> None:
    for document in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (document.parent / target).exists(), target
