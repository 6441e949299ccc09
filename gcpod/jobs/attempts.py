"""Which attempt of a job a run goes on with, and whether a new one is right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gcpod.errors import JobFailedError, NotFoundError
from gcpod.jobs.recovery import Again, GiveUp
from gcpod.jobs.request import Kind
from gcpod.jobs.submit import Submitter
from gcpod.status import Finding, JobInfo, JobState
from gcpod.uris import GcsUri

Decide = Callable[[Kind, list[JobInfo]], "Again | GiveUp"]
Look = Callable[[JobInfo], Sequence[Finding]]


@dataclass(frozen=True)
class Attempts:
    """Finds the attempts of a run's jobs by their claims in the bucket, so on any machine.

    Attributes:
        submitter: reads claims and knows the job service.
        region: that the run's jobs are submitted to.
        retry: a user asks for a new attempt of whatever did not succeed.
        decide: whether a job that did not succeed is submitted again without being asked.
        look: finds in a job's log why it did not.
    """

    submitter: Submitter
    region: str
    retry: bool
    decide: Decide
    look: Look

    def current(self, kind: Kind, claim: Callable[[int], GcsUri]) -> int:
        """The number of the attempt to go on with: the last one claimed, or the next where that is right.

        Args:
            kind: of the job.
            claim: the address of an attempt's claim.

        Raises:
            JobFailedError: the last attempt did not succeed, and no other is right.
        """
        made = self.made(claim)
        number = len(made)
        if not number:
            return 1
        last = made[-1]
        if last is None or not last.state.terminal or last.state is JobState.SUCCEEDED:
            return number
        decision = Again("code", 0.0) if self.retry else self.decide(kind, [info for info in made if info is not None])
        if isinstance(decision, GiveUp):
            raise self._refusal(kind, last, decision)
        return number + 1

    def made(self, claim: Callable[[int], GcsUri]) -> list[JobInfo | None]:
        """What became of every attempt, the first one first; None for a last one whose job is not known yet."""
        found: list[JobInfo | None] = []
        while True:
            there = self.submitter.find(claim(len(found) + 1))
            if there is None:
                return found
            if not there.job:
                return [*found, None]
            found.append(self._info(there.job))

    def _refusal(self, kind: Kind, last: JobInfo, decision: GiveUp) -> JobFailedError:
        found = last.error
        if last.create_time:
            said = f": {last.error}" if last.error else ""
            why = "" if decision.cause in ("code", "cancelled") else f"; {decision.why}"
            found = f"its last attempt ended {last.state.short}{said}{why}"
        for finding in self.look(last) if last.create_time else ():
            return JobFailedError(f"going on with the {kind} job", last.name, f"{found}; {finding.found}",
                                  f"{finding.fix}; then run again with --retry", code=finding.code)
        return JobFailedError(f"going on with the {kind} job", last.name, found,
                              "read its log with `gcpod jobs logs`, then run again with --retry")

    def _info(self, name: str) -> JobInfo:
        """What became of an attempt; one that cannot be gone on with is a failed one without times."""
        gone = JobInfo(name, "", JobState.FAILED)
        if f"/locations/{self.region}/" not in name:
            return replace(gone, error=f"it ran in another region than {self.region}")
        try:
            return self.submitter.jobs.get(name)
        except NotFoundError:
            return replace(gone, error="it was deleted")
