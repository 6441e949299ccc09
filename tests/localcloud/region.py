"""A local cloud that stands for a region of Google's, as its own clients want it, and jobs that gcpod sends there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gcpod.data.model import Box
from gcpod.demo import demo_spec
from gcpod.jobs.request import Kind
from gcpod.localcloud.cloud import JobCloud
from gcpod.localcloud.config import CloudConfig, Region
from gcpod.runner import Run
from gcpod.session import Session
from gcpod.settings import Setting, Settings
from gcpod.spec import DataSpec, Spec
from gcpod.uris import GcsUri
from tests.data.making import Dataset
from tests.jobs import without_keep_alive
from tests.runs import behave, make_run, remove

REGION = Region("us-central1", accelerators=("TPU_V2", "NVIDIA_TESLA_T4"))


@dataclass(frozen=True)
class Place:
    """A cloud, who asks it, and what to train there."""

    cloud: JobCloud
    session: Session
    spec: Spec

    def run(self) -> Run:
        return make_run(self.spec, self.session)

    def request(self, kind: Kind) -> dict[str, Any]:
        """What a run sends to have a job created."""
        return self.run().inputs.prepare().request(kind, self.session.settings)

    def hang(self) -> GcsUri:
        """Has the training hang until the object is removed."""
        return behave(self.run(), self.session, "hang-train")

    def free(self, hang: GcsUri) -> None:
        remove(self.session, hang)


@contextmanager
def opened(folder: Path, python: Path) -> Iterator[Place]:
    """A place in a folder; ``python`` is what its jobs run."""
    data = Dataset(folder)
    for number in range(8):
        data.add(f"picture{number}.jpg", Box("cat" if number % 2 else "dog", 10, 10, 60, 40))
    spec = replace(demo_spec(steps=100), folder=folder, data=DataSpec(images="images"))
    cloud = JobCloud(folder / "cloud", cache=folder / "cache", environment_of=lambda *_: python,
                     config=CloudConfig((REGION,)), middleware=without_keep_alive)
    with cloud:
        project, region, bucket, credentials, endpoint = (
            Setting(value, "test") for value in ("p", REGION.name, "gs://bucket-of-p", "", cloud.url)
        )
        session = Session(Settings(project, region, bucket, credentials, endpoint))
        with closing(session.storage):
            yield Place(cloud, session, spec)
