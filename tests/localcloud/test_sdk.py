"""Google's own SDK on jobs that gcpod submitted: a client nobody here wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gcpod.jobs.request import INTENT_LABEL, KIND_LABEL, RUN_LABEL, kinds_of
from tests.waiting import until

from .region import Place, opened


@pytest.fixture
def place(tmp_path: Path, quick_python: Path) -> Iterator[Place]:
    with opened(tmp_path, quick_python) as place:
        yield place


def listed(text: str) -> list[str]:
    """The resource names that the SDK lists for a filter, sorted."""
    from google.cloud import aiplatform

    return sorted(job.resource_name for job in aiplatform.CustomJob.list(filter=text))


def state_of(job: Any) -> str:
    return str(job.state.name.removeprefix("JOB_STATE_"))


@pytest.mark.long
def test_the_jobs_of_a_whole_run(place: Place) -> None:
    made = place.run().start()
    for kind in kinds_of(place.spec):
        name = made.jobs[kind]
        job = place.session.sdk_job(name)
        assert (job.resource_name, job.name) == (name, name.rpartition("/")[2])
        assert (state_of(job), job.error.code) == ("SUCCEEDED", 0)
        assert job.display_name == f"{made.run_id}-{kind}"
        assert job.labels[KIND_LABEL] == kind
        assert job.create_time <= job.start_time < job.end_time <= job.update_time
        assert listed(f'labels.{INTENT_LABEL}="{job.labels[INTENT_LABEL]}"') == [name]
        assert listed(f'display_name="{made.run_id}-{kind}" AND state="JOB_STATE_SUCCEEDED"') == [name]
        # What the service keeps is the request that gcpod says it sends.
        [pool] = place.request(kind)["jobSpec"]["workerPoolSpecs"]
        assert list(job.job_spec.worker_pool_specs[0].container_spec.args) == pool["containerSpec"]["args"]
        assert job.job_spec.worker_pool_specs[0].machine_spec.machine_type == pool["machineSpec"]["machineType"]
    assert listed("") == sorted(made.jobs.values())
    assert listed('state="JOB_STATE_FAILED"') == []
    either = '(state="JOB_STATE_FAILED" OR state="JOB_STATE_SUCCEEDED")'
    assert listed(f'labels.{RUN_LABEL}="{made.run_id}" AND {either}') == listed("")


@pytest.mark.long
def test_a_training_from_running_to_its_end(place: Place) -> None:
    hang = place.hang()
    job = place.session.sdk_job(place.run().submit("train").name)
    until(lambda: state_of(job) == "RUNNING")
    assert (job.end_time, listed('state="JOB_STATE_RUNNING"')) == (None, [job.resource_name])
    place.free(hang)
    until(lambda: state_of(job) == "SUCCEEDED")
    assert listed('state="JOB_STATE_RUNNING"') == []


@pytest.mark.long
def test_the_sdk_cancels_and_deletes(place: Place) -> None:
    place.hang()
    job = place.session.sdk_job(place.run().submit("train").name)
    until(lambda: state_of(job) == "RUNNING")
    job.cancel()
    until(lambda: state_of(job) == "CANCELLED")
    job.delete()
    assert listed("") == []
