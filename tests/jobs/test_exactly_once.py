"""Exactly once by the hundred: 100 intents whose creates all go wrong are 100 jobs, 50 races of two processes are 50.

Run as a program, this is one of the two that race: it gets an intent a line and prints the job that it was given.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

import gcpod.session
from gcpod.jobs.request import INTENT_LABEL
from gcpod.jobs.service import Jobs
from gcpod.jobs.submit import LOOK_S, Submitter
from gcpod.localcloud.cloud import JobCloud
from gcpod.localcloud.config import CloudConfig, Region
from gcpod.localcloud.faults_plan import CREATE, CallAction, CallFault, FaultPlan
from gcpod.session import Session
from gcpod.storage.objects import Objects
from gcpod.uris import GcsUri
from tests.jobs import Faults, session_of, shell_job

REPOSITORY = Path(__file__).resolve().parents[2]
BUCKET = "claims"
INTENTS = [f"intent-{number}" for number in range(100)]
RACES = [f"race-{number}" for number in range(50)]
WAITING = CloudConfig((Region(queued_s=86_400),))
"""Jobs stay QUEUED: what counts is that they are there, and processes would only take time."""
QUICK_S = 0.005
"""The pause between looks at another's claim."""


def claim(intent: str) -> GcsUri:
    return GcsUri(BUCKET, f"jobs/{intent}.json")


def submit(submitter: Submitter, intent: str) -> str:
    """The name of an intent's job, which has the intent for a display name, too."""
    return submitter.submit(shell_job(name=intent, labels={INTENT_LABEL: intent}), claim(intent)).name


def submit_all(session: Session, sleep: list[float]) -> dict[str, str]:
    """The job's name by intent; one submitter for all, as a run has one for its jobs."""
    submitter = Submitter(Jobs(session), Objects(session), sleep=sleep.append)
    return {intent: submit(submitter, intent) for intent in INTENTS}


def check_one_each(session: Session, given: dict[str, str]) -> None:
    """Holds what submitters returned against what the service lists, and what the claims say."""
    submitter = Submitter(Jobs(session), Objects(session))
    assert {job.labels[INTENT_LABEL]: job.name for job in submitter.jobs.list()} == given
    assert len(submitter.jobs.list()) == len(given)
    named = {intent: submitter.find(claim(intent)) for intent in given}
    assert {intent: found.job for intent, found in named.items() if found is not None} == given


@contextmanager
def opened(cloud: JobCloud) -> Iterator[Session]:
    """A session on a cloud that has a bucket for claims."""
    with cloud:
        session = session_of(cloud.url)
        Objects(session).ensure_bucket(BUCKET)
        with closing(session.storage):
            yield session


@pytest.mark.long
@pytest.mark.parametrize("fault", ["lost_reply", "truncate"])
def test_100_lost_replies_to_create_are_100_jobs(tmp_path: Path, fault: CallAction) -> None:
    plan = FaultPlan((CallFault(CREATE, fault, job="intent-*", times="always"),))
    cloud, sleep = JobCloud(tmp_path, cache=tmp_path, config=WAITING, faults=plan), list[float]()
    with opened(cloud) as session:
        given = submit_all(session, sleep)
        check_one_each(session, given)
        assert sorted(one.job for one in cloud.faulty.log) == sorted(INTENTS)
    assert sleep == [LOOK_S] * len(INTENTS)


@pytest.mark.long
def test_100_answers_503_after_the_work_are_100_jobs(tmp_path: Path) -> None:
    faults = Faults(lambda verb, path: "busy after" if verb == "POST" and path.endswith("/customJobs") else None)
    cloud, sleep = JobCloud(tmp_path, cache=tmp_path, config=WAITING, middleware=faults.wrap), list[float]()
    with opened(cloud) as session:
        check_one_each(session, submit_all(session, sleep))
    assert faults.times("POST", "/customJobs") == len(INTENTS) == len(sleep)


@pytest.mark.long
@pytest.mark.parametrize("fault", ["error", "reset"])
def test_100_creates_that_did_nothing_are_made_again(tmp_path: Path, fault: CallAction) -> None:
    rules = tuple(CallFault(CREATE, fault, job=intent) for intent in INTENTS)
    cloud, sleep = JobCloud(tmp_path, cache=tmp_path, config=WAITING, faults=FaultPlan(rules)), list[float]()
    with opened(cloud) as session:
        check_one_each(session, submit_all(session, sleep))
        assert sorted(one.job for one in cloud.faulty.log) == sorted(INTENTS)
    assert sleep == [LOOK_S] * len(INTENTS)


@pytest.mark.long
def test_100_creates_that_say_nothing_are_100_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Half of them never did anything; the others do their work once the client has stopped listening.
    monkeypatch.setattr(gcpod.session, "REQUEST_TIMEOUT_S", 0.5)
    stalls = [CallFault(CREATE, "stall", job=intent, seconds=60) for intent in INTENTS[::2]]
    delays = [CallFault(CREATE, "delay", job=intent, seconds=0.7) for intent in INTENTS[1::2]]
    cloud = JobCloud(tmp_path, cache=tmp_path, config=WAITING, faults=FaultPlan((*stalls, *delays)))

    def submit_some(intents: list[str]) -> dict[str, str]:
        session = session_of(cloud.url)
        with closing(session.storage):
            submitter = Submitter(Jobs(session), Objects(session), sleep=lambda _: time.sleep(1.0))
            return {intent: submit(submitter, intent) for intent in intents}

    # Waiting for nothing costs nothing: as many at once as make it quick.
    with opened(cloud) as session, ThreadPoolExecutor(20) as threads:
        given = [*threads.map(submit_some, [INTENTS[first::20] for first in range(20)])]
        check_one_each(session, {intent: name for some in given for intent, name in some.items()})
        assert sorted(one.job for one in cloud.faulty.log) == sorted(INTENTS)


@contextmanager
def racer(url: str) -> Iterator[subprocess.Popen[str]]:
    """One of the two processes, when it is ready."""
    command = [sys.executable, "-m", "tests.jobs.test_exactly_once", url]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
    ) as process:
        try:
            assert answer(process) == ["ready"]
            yield process
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(30) == 0
        finally:
            process.kill()


def answer(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    return process.stdout.readline().split()


def tell(process: subprocess.Popen[str], intent: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{intent}\n")


@pytest.mark.long
def test_50_races_of_two_processes_are_50_jobs(tmp_path: Path) -> None:
    given, owners, waited = dict[str, str](), Counter[int](), 0
    with opened(JobCloud(tmp_path, cache=tmp_path, config=WAITING)) as session, ExitStack() as stack:
        both = [stack.enter_context(racer(session.settings.endpoint.value)) for _ in range(2)]
        for number, intent in enumerate(RACES):
            for process in both if number % 2 else reversed(both):
                tell(process, intent)
            (first, first_owns, first_looks), (second, second_owns, second_looks) = map(answer, both)
            assert first == second, intent
            assert {first_owns, second_owns} == {"True", "False"}, intent
            given[intent] = first
            owners[first_owns == "True"] += 1
            waited += int(first_looks) + int(second_looks)
        check_one_each(session, given)
    # Both came first at times, and the other met a claim whose job was not known yet: these were races.
    assert len(owners) == 2
    assert waited


def race(url: str) -> None:
    """One racer: for each intent the job, whether the claim is ours, and how often another's was waited for."""
    session = session_of(url)
    looks = list[float]()

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        time.sleep(QUICK_S)

    submitter = Submitter(Jobs(session), Objects(session), sleep=sleep)
    assert submitter.find(claim("none")) is None
    print("ready", flush=True)
    for line in sys.stdin:
        looks.clear()
        name = submit(submitter, line.strip())
        found = submitter.find(claim(line.strip()))
        print(name, found is not None and found.owner == submitter.owner, len(looks), flush=True)


if __name__ == "__main__":
    race(sys.argv[1])
