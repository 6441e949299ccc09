"""Exactly-once submission, whatever is lost on the way; jobs are counted by listing them."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gcpod.errors import OutageError, ServiceError
from gcpod.jobs.request import INTENT_LABEL
from gcpod.jobs.service import Jobs
from gcpod.jobs.submit import ATTEMPTS, CLAIM_GRACE_S, LOOK_S, Claim, Submitter
from gcpod.localcloud.cloud import JobCloud
from gcpod.status import JobInfo, JobState
from gcpod.storage.objects import Objects
from gcpod.uris import GcsUri
from tests.jobs import Fault, Faults, session_of, shell_job
from tests.waiting import until

WHERE = GcsUri("claims", "jobs/train-1.json")


class Place:
    """A local cloud with faults on the way to it, and a clock that only sleeping moves."""

    def __init__(self, cloud: JobCloud, faults: Faults, project: str) -> None:
        self.cloud, self.faults, self.project, self.time = cloud, faults, project, 0.0
        self.naps: list[float] = []
        self.at_sleep: Callable[[], None] = lambda: None
        self.jobs = Jobs(session_of(cloud.url, project))
        self.objects = Objects(self.jobs.session)
        self.objects.ensure_bucket("claims")

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        self.naps.append(seconds)
        self.at_sleep()

    def submitter(self) -> Submitter:
        jobs = Jobs(session_of(self.cloud.url, self.project))
        return Submitter(jobs, Objects(jobs.session), lambda: self.time, self.sleep)

    def made(self, intent: str = "i") -> list[JobInfo]:
        """The jobs of an intent that have not been cancelled."""
        gone = (JobState.CANCELLED, JobState.CANCELLING)
        return [job for job in self.jobs.list({INTENT_LABEL: intent}) if job.state not in gone]

    def claim(self) -> Claim:
        found = self.objects.read(WHERE)
        assert found is not None
        return Claim.parse(found.content, WHERE)

    def leave(self, claim: Claim) -> None:
        self.objects.write(WHERE, claim.encode())


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, quick_python: Path) -> Iterator[tuple[JobCloud, Faults]]:
    folder, faults = tmp_path_factory.mktemp("shared"), Faults()
    made = JobCloud(folder / "c", cache=folder, environment_of=lambda *_: quick_python, middleware=faults.wrap)
    with made as cloud:
        yield cloud, faults


@pytest.fixture
def place(shared: tuple[JobCloud, Faults]) -> Iterator[Place]:
    """A project of the test's own on a shared cloud, and no claims yet."""
    cloud, faults = shared
    place = Place(cloud, faults, f"p-{uuid.uuid4().hex[:12]}")
    yield place
    faults.choose = lambda *_: None
    faults.seen.clear()
    bucket = place.jobs.session.storage.bucket(WHERE.bucket)
    bucket.delete_blobs(list(bucket.list_blobs()))
    place.jobs.session.storage.close()


def body(intent: str = "i", script: str = "true") -> dict[str, Any]:
    return shell_job(script, labels={INTENT_LABEL: intent})


def on_create(*faults: Fault | int | None) -> Callable[[str, str], Fault | int | None]:
    """A fault for each create in turn."""
    left = list(faults)
    return lambda verb, path: left.pop(0) if left and verb == "POST" and path.endswith("/customJobs") else None


def test_plain(place: Place) -> None:
    submitter = place.submitter()
    assert submitter.find(WHERE) is None
    job = submitter.submit(body(), WHERE)
    assert [one.name for one in place.made()] == [job.name]
    assert place.claim() == Claim("i", submitter.owner, job.name)
    assert submitter.find(WHERE) == place.claim()
    assert place.naps == []


def test_again_by_anyone_is_the_same_job(place: Place) -> None:
    first = place.submitter()
    job = first.submit(body(), WHERE)
    assert first.submit(body(), WHERE).name == job.name
    assert place.submitter().submit(body(), WHERE).name == job.name
    assert len(place.made()) == 1
    assert place.submitter().submit(body("other"), GcsUri("claims", "other")).name != job.name


@pytest.mark.parametrize("fault", ["busy", "dropped", "busy after", "dropped after", 429, 504])
@pytest.mark.parametrize("times", [1, 2])
def test_a_reply_that_got_lost(place: Place, fault: Fault | int, times: int) -> None:
    place.faults.choose = on_create(*[fault] * times)
    job = place.submitter().submit(body(), WHERE)
    assert [one.name for one in place.made()] == [job.name]
    assert place.claim().job == job.name
    lost = isinstance(fault, str) and fault.endswith("after")
    assert place.faults.times("POST", "/customJobs") == (1 if lost else times + 1)


def test_the_service_is_away_for_a_while(place: Place) -> None:
    # The listing that looks for a lost job fails with it.
    place.faults.choose = lambda _, path: "busy" if "customJobs" in path and len(place.naps) < ATTEMPTS - 1 else None
    job = place.submitter().submit(body(), WHERE)
    assert [one.name for one in place.made()] == [job.name]
    assert place.naps == [LOOK_S * number for number in range(1, ATTEMPTS)]


def test_the_service_stays_away_and_comes_back(place: Place) -> None:
    place.faults.choose = lambda verb, path: "busy after" if verb == "POST" and path.endswith("/customJobs") else (
        "busy" if path.endswith("/customJobs") and place.faults.times("POST", "/customJobs") else None)
    submitter = place.submitter()
    with pytest.raises(OutageError):
        submitter.submit(body(), WHERE)
    place.faults.choose = lambda *_: None
    [job] = place.made()
    assert place.claim().job == ""
    assert submitter.submit(body(), WHERE).name == job.name
    assert place.submitter().submit(body(), WHERE).name == job.name
    assert len(place.made()) == 1


def test_a_refusal_is_passed_on(place: Place) -> None:
    wrong = body()
    wrong["displayName"] = ""
    with pytest.raises(ServiceError, match="display_name"):
        place.submitter().submit(wrong, WHERE)
    assert place.made() == []


def test_a_claim_that_is_not_ours_to_read(place: Place) -> None:
    place.objects.write(WHERE, b'{"colour": "red"}')
    with pytest.raises(ServiceError, match="it is not what gcpod wrote; remove that object"):
        place.submitter().submit(body(), WHERE)


@pytest.mark.long
def test_twenty_races(place: Place) -> None:
    racers = [Jobs(session_of(place.cloud.url, place.project)) for _ in range(2)]

    def race(jobs: Jobs, intent: str, where: GcsUri, gate: threading.Barrier, names: list[str]) -> None:
        submitter = Submitter(jobs, Objects(jobs.session), sleep=lambda _: time.sleep(0.005))
        gate.wait()
        names.append(submitter.submit(body(intent), where).name)

    for number in range(20):
        intent, where = f"race-{number}", GcsUri("claims", f"race-{number}")
        gate, names = threading.Barrier(2), list[str]()
        threads = [threading.Thread(target=race, args=(jobs, intent, where, gate, names)) for jobs in racers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [one.name for one in place.jobs.list({INTENT_LABEL: intent})] == [names[0]]
        assert names[0] == names[1]
    for jobs in racers:
        jobs.session.storage.close()


def test_a_crash_between_claim_and_create(place: Place) -> None:
    place.leave(Claim("i", "gone"))
    submitter = place.submitter()
    job = submitter.submit(body(), WHERE)
    assert CLAIM_GRACE_S <= place.time <= CLAIM_GRACE_S + LOOK_S
    assert [one.name for one in place.made()] == [job.name]
    assert place.claim() == Claim("i", submitter.owner, job.name)


@pytest.mark.long
def test_a_claim_that_changes_hands_is_given_its_time_again(place: Place) -> None:
    place.leave(Claim("i", "gone"))

    def take_over_late() -> None:
        if len(place.naps) == 20:
            place.leave(Claim("i", "another"))

    place.at_sleep = take_over_late
    place.submitter().submit(body(), WHERE)
    assert place.time >= 19 * LOOK_S + CLAIM_GRACE_S
    assert len(place.made()) == 1


def test_a_crash_between_create_and_writing_the_name(place: Place) -> None:
    job = place.jobs.create(body())
    place.leave(Claim("i", "gone"))
    assert place.submitter().submit(body(), WHERE).name == job.name
    assert place.naps == []
    assert place.claim() == Claim("i", "gone", job.name)
    assert len(place.made()) == 1


def test_the_claim_is_removed_while_another_waits(place: Place) -> None:
    place.leave(Claim("i", "gone"))
    place.at_sleep = lambda: place.jobs.session.storage.bucket("claims").blob(WHERE.name).delete()
    job = place.submitter().submit(body(), WHERE)
    assert [one.name for one in place.made()] == [job.name]
    assert len(place.naps) == 1


class SlowJobs(Jobs):
    """A client that stands still around its create, while ``before`` and ``after`` happen."""

    def __init__(self, place: Place, before: Callable[[], Any], after: Callable[[], Any]) -> None:
        super().__init__(session_of(place.cloud.url, place.project))
        self.before, self.after = before, after

    def create(self, body: dict[str, Any]) -> JobInfo:
        self.before()
        job = super().create(body)
        self.after()
        return job


def slow(place: Place, before: Callable[[], Any] = lambda: None, after: Callable[[], Any] = lambda: None) -> Submitter:
    return Submitter(SlowJobs(place, before, after), place.objects, lambda: place.time, place.sleep)


def test_who_was_overtaken_cancels_its_own_job(place: Place) -> None:
    others: list[JobInfo] = []
    submitter = slow(place, before=lambda: others.append(place.submitter().submit(body(script="sleep 60"), WHERE)))
    job = submitter.submit(body(script="sleep 60"), WHERE)
    assert place.time >= CLAIM_GRACE_S
    assert job.name == others[0].name == place.claim().job
    assert len(place.jobs.list({INTENT_LABEL: "i"})) == 2
    until(lambda: [one.name for one in place.made()] == [job.name])


def test_an_outage_while_cancelling_its_own_job(place: Place) -> None:
    others: list[JobInfo] = []
    submitter = slow(place, before=lambda: others.append(place.submitter().submit(body(script="sleep 60"), WHERE)))
    place.faults.choose = lambda _, path: "busy" if path.endswith(":cancel") and place.faults.times(
        "POST", ":cancel") < 2 else None
    assert submitter.submit(body(script="sleep 60"), WHERE).name == others[0].name
    until(lambda: [one.name for one in place.made()] == [others[0].name])


def test_who_was_overtaken_is_found_by_the_one_that_overtook(place: Place) -> None:
    # The claim is taken over, the slow create goes through, and only then does the new owner look.
    others: list[JobInfo] = []

    def look() -> None:
        place.at_sleep = lambda: None
        others.append(place.submitter().submit(body(), WHERE))

    place.at_sleep = look
    job = slow(place, before=lambda: place.leave(Claim("i", "another"))).submit(body(), WHERE)
    assert others[0].name == job.name == place.claim().job
    assert [one.name for one in place.jobs.list({INTENT_LABEL: "i"})] == [job.name]


def test_who_overtook_dies(place: Place) -> None:
    submitter = slow(place, after=lambda: place.leave(Claim("i", "another")))
    job = submitter.submit(body(), WHERE)
    assert place.time >= CLAIM_GRACE_S
    assert place.claim() == Claim("i", submitter.owner, job.name)
    assert [one.name for one in place.made()] == [job.name]


def test_who_adopts_yields_to_the_claim(place: Place) -> None:
    # Between the look and writing the name, the claim comes to name another job.
    adopted, winner = place.jobs.create(body("i")), place.jobs.create(body("other"))
    place.leave(Claim("i", "gone"))

    class Late(Objects):
        def write_if(self, uri: GcsUri, content: bytes, generation: int) -> int | None:
            if generation:
                place.leave(Claim("i", "gone", winner.name))
            return super().write_if(uri, content, generation)

    submitter = Submitter(place.jobs, Late(place.jobs.session), lambda: place.time, place.sleep)
    assert submitter.submit(body(), WHERE).name == winner.name != adopted.name
