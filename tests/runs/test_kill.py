"""`gcpod run` killed with SIGKILL again and again and started again: it leaves what an undisturbed run leaves."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gcpod.checksums import file_crc32c
from gcpod.data.model import Box
from gcpod.demo import demo_spec
from gcpod.jobs.logs import LogReader
from gcpod.jobs.service import Jobs
from gcpod.jobs.submit import Submitter
from gcpod.layout import RunLayout
from gcpod.localcloud.cloud import JobCloud
from gcpod.localcloud.faults_plan import CREATE, CallFault, FaultPlan
from gcpod.prepare import Workdir
from gcpod.session import Session
from gcpod.settings import resolve
from gcpod.specfile import load_spec, render_spec
from gcpod.status import JobInfo, JobState
from gcpod.storage.objects import Objects
from gcpod.uris import GcsUri
from tests.data.making import Dataset
from tests.quick_trainer import LINES

SEED = 20261121
RUNS, KILLS, IMAGES = 5, 5, 200
JOB_S, CREATE_S = 3.0, 1.0
"""So long each job takes, and so long the service keeps each create to itself, whose client may be dead by then."""
INTENTS = {"train": "train-1", "eval": "eval-1-1", "export": "export-1-1"}
STAGES = {"train": "training", "eval": "evaluation", "export": "export"}
TIMEOUT_S = 240.0
QUIET = ("GOOGLE_", "CLOUDSDK_", "CLOUD_ML_", "GCPOD_ENDPOINT")


@dataclass
class Project:
    """A project's folder and a cloud of its own; all are alike, down to the name of the bucket."""

    folder: Path
    cloud: JobCloud
    clients: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        data = Dataset(self.folder)
        for number in range(IMAGES):
            data.add(f"picture{number}.jpg", Box("cat" if number % 2 else "dog", 10, 10, 60, 40))
        text = render_spec(demo_spec(steps=100)).replace("data/images", "images").replace("data/annotations", "")
        (self.folder / "gcpod.yaml").write_text(text, encoding="utf-8")
        self.spec = load_spec(self.folder / "gcpod.yaml")
        self.session = Session(resolve(self.spec, endpoint=self.cloud.url, environ={}, home=self.folder))
        self.objects, self.root = Objects(self.session), self.session.settings.bucket_uri

    def start(self) -> subprocess.Popen[bytes]:
        """The client, as a user starts it."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(QUIET)}
        environment["CLOUDSDK_CONFIG"] = str(self.folder / "no-gcloud")
        command = [sys.executable, "-m", "gcpod", "run", "--endpoint", self.cloud.url]
        with (self.folder / "said.txt").open("ab") as said:
            client = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=said, stderr=said)
        self.clients.append(client)
        return client

    def finish(self) -> None:
        """Starts the client a last time and lets it come to its end."""
        code = self.start().wait(TIMEOUT_S)
        assert code == 0, (self.folder / "said.txt").read_text()

    def claims(self) -> dict[str, str] | None:
        """The job that each claim names, "" for one that names none yet; None where there is no bucket yet."""
        if not self.session.storage.lookup_bucket(self.root.bucket):
            return None
        found = [one.uri for one in self.objects.list(self.root / "runs") if "/jobs/" in one.uri.name]
        claims = {uri.name.rpartition("/")[2][:-5]: Submitter(Jobs(self.session), self.objects).find(uri)
                  for uri in found}
        return {intent: claim.job for intent, claim in claims.items() if claim is not None}

    def submitting(self) -> set[str]:
        """Intents whose create the service has got."""
        return {intent for kind, intent in INTENTS.items() for one in self.cloud.faulty.log if one.job.endswith(kind)}

    def under_way(self) -> set[str]:
        """What is not over yet, as the cloud sees it."""
        claims = self.claims() or {}
        jobs = {job.labels["gcpod_kind"] for job in Jobs(self.session).list() if not job.state.terminal}
        found = {STAGES[kind] for kind in jobs} | ({"submission"} if "" in claims.values() else set())
        return found if claims else {"upload"}

    def jobs(self) -> dict[str, JobInfo]:
        """The jobs by intent; fails where an intent has two, or one that is no job of the run."""
        listed = Jobs(self.session).list()
        found = {INTENTS[job.labels["gcpod_kind"]]: job for job in listed}
        assert len(listed) == len(found), listed
        return found

    @property
    def run_id(self) -> str:
        [folder] = {path.parent for path in (self.folder / "runs").glob("*/pipeline.config")}
        return folder.name

    def objects_left(self) -> dict[str, str]:
        """Name and checksum of each object; what holds times or the owner of a claim has no checksum."""
        return {
            one.uri.name: "" if "tfevents" in one.uri.name or "/jobs/" in one.uri.name else one.crc32c
            for one in self.objects.list(GcsUri(self.root.bucket))
        }

    def upload_s(self) -> float:
        """From the bucket to the manifest, which is uploaded last."""
        bucket = self.session.storage.get_bucket(self.root.bucket)
        manifest = bucket.get_blob(RunLayout.of(self.root, self.run_id).manifest.name)
        return float((manifest.time_created - bucket.time_created).total_seconds())

    def metrics(self) -> Any:
        told = json.loads(Workdir.of(self.spec).result(self.run_id).read_text())
        return {key: value for key, value in told.items() if key != "jobs"}


@dataclass(frozen=True)
class Point:
    """A moment to kill the client at: so many seconds after the bucket is there, the service has got the create of an
    intent, or the intent's claim names its job.

    Who dies between its claim and its create is waited for for CLAIM_GRACE_S: test_submit.py has a clock for that.
    """

    stage: str
    intent: str
    after_s: float

    def reached(self, project: Project) -> bool:
        if self.stage == "submission":
            return self.intent in project.submitting()
        claims = project.claims()
        return claims is not None and (self.stage == "upload" or bool(claims.get(self.intent)))


def points_of(chance: random.Random, number: int, upload_s: float) -> list[Point]:
    """Five moments of a run in their order, one of each stage; the submission is of each job in turn."""
    found = [Point("upload", "", chance.uniform(0, upload_s))]
    for place, (kind, intent) in enumerate(INTENTS.items()):
        if number % len(INTENTS) == place:
            found.append(Point("submission", intent, chance.uniform(0, CREATE_S)))
        found.append(Point(STAGES[kind], intent, chance.uniform(0, JOB_S)))
    return found


def killed(project: Project, point: Point) -> set[str] | None:
    """Starts the client and kills it at a moment; returns what was under way then, None where it ended before."""
    client, deadline = project.start(), time.monotonic() + TIMEOUT_S
    while client.poll() is None and not point.reached(project):
        assert time.monotonic() < deadline, point
        time.sleep(0.02)
    try:
        code = client.wait(point.after_s)
    except subprocess.TimeoutExpired:
        client.kill()
        client.wait()
        return project.under_way()
    assert code == 0, (project.folder / "said.txt").read_text()
    return None


Opened = Callable[[str], Any]


@pytest.fixture
def opened(tmp_path: Path, quick_python: Path) -> Opened:
    """Opens projects by name."""
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nexport QUICK_TRAINER_S={JOB_S}\nexec {quick_python} "$@"\n')
    program.chmod(0o755)
    slow = FaultPlan((CallFault(CREATE, "delay", job="*", times="always", seconds=CREATE_S),))

    @contextmanager
    def open_project(name: str) -> Iterator[Project]:
        folder = tmp_path / name / "project"
        folder.mkdir(parents=True)
        cloud = JobCloud(tmp_path / name / "cloud", cache=tmp_path / "cache", environment_of=lambda *_: program,
                         faults=slow)
        with cloud:
            project = Project(folder, cloud)
            try:
                yield project
            finally:
                for client in project.clients:
                    client.kill()
                    client.wait()
                project.session.storage.close()

    return open_project


@dataclass(frozen=True)
class Left:
    """What a run leaves."""

    objects: dict[str, str]
    metrics: Any


def check_whole(project: Project) -> Left:
    """One job of each kind, named by its claim, whose every line is in its log's file once; event files are here."""
    jobs, claims, workdir = project.jobs(), project.claims(), Workdir.of(project.spec)
    assert {intent: job.name for intent, job in jobs.items()} == claims
    assert {job.state for job in jobs.values()} == {JobState.SUCCEEDED}
    assert sorted(jobs) == sorted(INTENTS.values())
    for intent, job in jobs.items():
        written = workdir.log(project.run_id, intent).read_text().splitlines()
        told = LogReader(project.session, job.id).poll()
        assert written == [f"{line.time} {line.severity} {line.task} {line.text}" for line in told], intent
        assert sum(" line " in row for row in written) == LINES
    model = project.root / "runs" / project.run_id / "model"
    brought = workdir.tensorboard(project.run_id)
    for one in project.objects.list(model):
        if "tfevents" in one.uri.name:
            assert file_crc32c(brought / one.uri.name.removeprefix(f"{model.name}/")) == one.crc32c
    return Left(project.objects_left(), project.metrics())


@pytest.mark.long
def test_a_run_killed_at_25_moments_is_the_run_that_nobody_disturbed(opened: Opened) -> None:
    with opened("undisturbed") as project:
        began = time.monotonic()
        project.finish()
        all_s, undisturbed = time.monotonic() - began, check_whole(project)
        upload_s = project.upload_s()
    print(f"seed {SEED}; an undisturbed run takes {all_s:.1f} s, of these its upload {upload_s:.1f} s")

    def disturb(number: int) -> list[set[str]]:
        chance = random.Random(f"{SEED} {number}")  # noqa: S311 - no secret
        points, stages = points_of(chance, number, upload_s), list[set[str]]()
        # A run that ends before its client was killed for the last time is followed by another.
        for turn in range(KILLS):
            with opened(f"killed-{number}-{turn}") as project:
                while len(stages) < KILLS:
                    under_way = killed(project, points[len(stages)])
                    if under_way is None:
                        break
                    print(f"run {number}: killed at {points[len(stages)]}, during {sorted(under_way)}")
                    stages.append(under_way)
                project.finish()
                assert check_whole(project) == undisturbed
            if len(stages) == KILLS:
                break
        return stages

    # They mostly wait.
    with ThreadPoolExecutor(RUNS) as threads:
        all_stages = [stages for some in threads.map(disturb, range(RUNS)) for stages in some]
    assert len(all_stages) == RUNS * KILLS == 25
    often = Counter(stage for stages in all_stages for stage in stages)
    print(often)
    # One of each run was meant for each of them.
    assert all(often[stage] >= RUNS // 2 for stage in ("upload", "submission", *STAGES.values())), often
