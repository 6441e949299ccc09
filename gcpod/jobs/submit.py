"""Exactly-once submission: one intent, one job, whatever is lost on the way.

customJobs.create takes no request id, so a claim object decides: whoever creates it (``ifGenerationMatch=0``) may
submit. The job carries the intent as a label, by which it is found again when the reply was lost or the client died.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from gcpod.errors import AuthError, OutageError, ServiceError
from gcpod.jobs.request import INTENT_LABEL
from gcpod.jobs.service import Jobs
from gcpod.status import JobInfo
from gcpod.storage.objects import Objects
from gcpod.uris import GcsUri

CLAIM_GRACE_S = 90.0
"""A claim without a job for this long is dead: longer than the create call's own time-out (session.py)."""
LOOK_S = 3.0
ATTEMPTS = 5
QUOTA = "J403"
"""An answer after which there is no job: the region has no quota left, for now."""
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Claim:
    """The content of a claim object; ``job`` is "" until the job's name is known."""

    intent: str
    owner: str
    job: str = ""

    @classmethod
    def parse(cls, content: bytes, where: GcsUri) -> Claim:
        try:
            return cls(**json.loads(content))
        except (ValueError, TypeError) as e:
            raise ServiceError("reading the claim", where, "it is not what gcpod wrote", "remove that object") from e

    def encode(self) -> bytes:
        return json.dumps(asdict(self), indent=1).encode()


class Submitter:
    """Submits the jobs of one run.

    Args:
        jobs: the job service.
        objects: the bucket's objects.
        clock, sleep: seconds; the process's own unless given.
        say: told when another process's claim is waited for.
    """

    def __init__(
        self, jobs: Jobs, objects: Objects,
        clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.jobs, self.objects, self.clock, self.sleep, self.say = jobs, objects, clock, sleep, say
        self.owner = uuid.uuid4().hex

    def find(self, where: GcsUri) -> Claim | None:
        """The claim at an address, None when nobody made one; its job may not be known yet."""
        found = self.objects.read(where)
        return Claim.parse(found.content, where) if found else None

    def submit(self, body: dict[str, Any], where: GcsUri) -> JobInfo:
        """Makes sure that the intent in the body's label has its job, and returns it.

        Args:
            body: of customJobs.create.
            where: the claim's address, one per intent.

        Raises:
            ServiceError: the service refuses the job, or stays out of reach.
        """
        intent = body["labels"][INTENT_LABEL]
        seen, since = 0, self.clock()
        while True:
            generation = self.objects.write_if(where, Claim(intent, self.owner).encode(), 0)
            if generation is not None:
                return self._create(body, intent, where, generation)
            found = self.objects.read(where)
            if found is None:
                continue
            claim = Claim.parse(found.content, where)
            if claim.job:
                return self.jobs.get(claim.job)
            if claim.owner == self.owner:
                return self._create(body, intent, where, found.generation)
            job = self._look(intent)
            if job is not None:
                named = Claim(intent, claim.owner, job.name).encode()
                if self.objects.write_if(where, named, found.generation) is not None:
                    return job
                continue
            if found.generation != seen:
                seen, since = found.generation, self.clock()
                self.say(f"another process is submitting {intent}; waiting up to {CLAIM_GRACE_S:.0f} s for its job")
            if self.clock() - since >= CLAIM_GRACE_S:
                taken = self.objects.write_if(where, Claim(intent, self.owner).encode(), found.generation)
                if taken is not None:
                    return self._create(body, intent, where, taken)
            self.sleep(LOOK_S)

    def _look(self, intent: str) -> JobInfo | None:
        jobs = self.jobs.list({INTENT_LABEL: intent})
        return jobs[-1] if jobs else None

    def _create(self, body: dict[str, Any], intent: str, where: GcsUri, generation: int) -> JobInfo:
        """Creates the job under a claim that is ours, and writes its name into the claim.

        A refusal gives the claim up, so that a corrected request need not wait for it.
        """
        try:
            job = self._create_or_find(body, intent)
        except (ServiceError, AuthError):
            self.objects.delete_if(where, generation)
            raise
        except OutageError as e:
            if e.code == QUOTA:
                self.objects.delete_if(where, generation)
            raise
        if self.objects.write_if(where, Claim(intent, self.owner, job.name).encode(), generation) is None:
            return self._settle(job, intent, where)
        return job

    def _create_or_find(self, body: dict[str, Any], intent: str) -> JobInfo:
        # Every create is preceded by a look: the reply to the one before, by whatever process, may have been lost.
        return self.patiently(lambda: self._look(intent) or self.jobs.create(body))

    def patiently(self, call: Callable[[], _Answer]) -> _Answer:
        """A call that is repeated over a short outage.

        Raises:
            OutageError: it lasted.
        """
        for attempt in range(1, ATTEMPTS):
            try:
                return call()
            except OutageError as e:
                if e.code == QUOTA:
                    raise
                self.sleep(LOOK_S * attempt)
        return call()

    def _settle(self, job: JobInfo, intent: str, where: GcsUri) -> JobInfo:
        """Our claim was taken over while this process stood still: the job that the claim comes to name stays.

        Who took over may yet find our job by its label, so ours goes only once the claim names another.
        """
        since = self.clock()
        while True:
            found = self.objects.read(where)
            winner = Claim.parse(found.content, where).job if found else ""
            if winner == job.name:
                return job
            if winner:
                self.patiently(lambda: self.jobs.cancel(job.name))
                return self.jobs.get(winner)
            if found is None or self.clock() - since >= CLAIM_GRACE_S:
                named = Claim(intent, self.owner, job.name).encode()
                if self.objects.write_if(where, named, found.generation if found else 0) is not None:
                    return job
                continue
            self.sleep(LOOK_S)
