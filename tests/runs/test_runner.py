"""Whole runs on a local cloud whose trainer image takes half a second: order, resumption, failure, exactly once."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession

from gcpod.errors import JobFailedError, OutageError, StorageError
from gcpod.inputs import RunOptions
from gcpod.jobs.request import INTENT_LABEL
from gcpod.jobs.service import Jobs
from gcpod.jobs.submit import Claim
from gcpod.runner import Run
from gcpod.session import Session
from gcpod.settings import resolve
from gcpod.spec import MachineSpec, Spec
from gcpod.status import JobState
from gcpod.storage.objects import Objects
from gcpod.uris import GcsUri
from tests.jobs import Fault, Faults
from tests.runs import Told, behave, blink, kinds, make_run, remove


def test_a_run_trains_evaluates_exports_and_brings_the_results(spec: Spec, session: Session) -> None:
    told = Told()
    result = make_run(spec, session, told).start()
    assert set(result.jobs) == {"train", "eval", "export"}
    assert told.states[0] == ("train", "QUEUED")
    assert [kind for kind, state in told.states if state == "SUCCEEDED"].count("export") == 1
    assert [metrics.step for metrics in result.metrics] == [0, 100]
    assert result.final is not None
    assert (result.final.ap, result.final.ap50, result.final.ap75) == (0.5, 0.75, 0.625)
    assert sorted(p.name for p in result.tensorboard.glob("*/events.out.tfevents.*")) == ["events.out.tfevents.1"] * 2
    assert Objects(session).exists(GcsUri.parse(result.saved_model) / "saved_model.pb")
    assert (spec.folder / "runs" / result.run_id / "result.json").exists()
    pages = [text for text in told.texts if text.startswith("train: see http")]
    assert pages == [f"train: see {session.console_url(result.jobs['train'].rsplit('/', 1)[-1])}"]
    assert any(p.step == 100 and p.loss == 0.5 and p.total_steps == 100 for p in told.progressed)
    assert any("Step 100 per-step time" in line for line in told.logged)
    assert any(text.startswith("machine of train: the local region offers CPU machines only") for text in told.texts)


def test_a_second_start_submits_and_uploads_nothing(spec: Spec, session: Session) -> None:
    first = make_run(spec, session).start()
    told = Told()
    second = make_run(spec, session, told).start()
    assert second.jobs == first.jobs
    assert len(Jobs(session).list()) == 3
    assert any(text.startswith("uploaded 0 files") for text in told.texts)


@pytest.mark.long
def test_another_run_of_the_same_inputs_is_made_only_when_asked(spec: Spec, session: Session) -> None:
    first = make_run(spec, session).start()
    again = make_run(spec, session, options=RunOptions(again=True)).start()
    newest = make_run(spec, session).start()
    assert again.run_id == f"{first.run_id}-2"
    assert newest.run_id == again.run_id
    assert make_run(spec, session, options=RunOptions(again_when_done=True)).start().run_id == f"{first.run_id}-3"
    assert len(Jobs(session).list()) == 9


def test_other_inputs_are_another_run_and_other_machines_are_not(spec: Spec, session: Session) -> None:
    first = make_run(spec, session).upload().run_id
    slower = replace(spec, train=replace(spec.train, machine=spec.eval.machine, timeout_hours=1.0))
    longer = replace(spec, train=replace(spec.train, steps=200))
    assert make_run(slower, session).upload().run_id == first
    assert make_run(longer, session).upload().run_id != first


def test_a_run_interrupted_anywhere_goes_on_and_submits_each_job_once(spec: Spec, session: Session) -> None:
    hang = behave(make_run(spec, session), session, "hang-train")

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    run = Run(spec, session, Told(), sleep=interrupt)
    with pytest.raises(KeyboardInterrupt):
        run.start()
    train = run.followed["train"].info
    assert not Jobs(session).get(train.name).state.terminal
    with pytest.raises(KeyboardInterrupt):
        Run(spec, session, Told(), sleep=interrupt).start()
    session.storage.bucket(hang.bucket).blob(hang.name).delete()
    result = make_run(spec, session).start()
    assert result.jobs["train"] == train.name
    assert len(Jobs(session).list()) == 3


def test_a_failed_training_ends_the_run_and_is_submitted_anew_only_when_asked(spec: Spec, session: Session) -> None:
    fail = behave(make_run(spec, session), session, "fail-train")
    told = Told()
    with pytest.raises(JobFailedError, match="exited with a non-zero status of 1"):
        make_run(spec, session, told).start()
    assert any("told to fail" in line for line in told.logged)
    assert "export" not in dict(told.states)
    with pytest.raises(JobFailedError, match="run again with --retry"):
        make_run(spec, session).start()
    trainings = [job for job in Jobs(session).list() if job.labels["gcpod_kind"] == "train"]
    assert len(trainings) == 1
    session.storage.bucket(fail.bucket).blob(fail.name).delete()
    result = make_run(spec, session, options=RunOptions(retry=True)).start()
    assert result.jobs["train"] != trainings[0].name
    assert result.final is not None


def test_the_evaluation_starts_while_the_training_runs(spec: Spec, session: Session) -> None:
    hang = behave(make_run(spec, session), session, "hang-train")
    told = Told()

    def go_on_once_evaluated(seconds: float) -> None:
        if ("eval", "SUCCEEDED") in told.states and ("train", "SUCCEEDED") not in told.states and not freed:
            assert kinds(session) == ["eval", "train"]
            freed.append(True)
            remove(session, hang)
        blink(seconds)

    freed: list[bool] = []
    Run(spec, session, told, sleep=go_on_once_evaluated).start()
    assert freed


@pytest.mark.long
def test_each_training_attempt_is_evaluated_anew(spec: Spec, session: Session) -> None:
    fail = behave(make_run(spec, session), session, "fail-train")
    hang = behave(make_run(spec, session), session, "hang-train")
    told = Told()

    def fail_once_evaluated(seconds: float) -> None:
        if ("eval", "SUCCEEDED") in told.states and not freed:
            freed.append(True)
            remove(session, hang)
        blink(seconds)

    freed: list[bool] = []
    with pytest.raises(JobFailedError):
        Run(spec, session, told, sleep=fail_once_evaluated).start()
    remove(session, fail)
    result = make_run(spec, session, options=RunOptions(retry=True)).start()
    assert kinds(session) == ["eval", "eval", "export", "train", "train"]
    newest = {job.name for job in Jobs(session).list() if job.labels["gcpod_intent"].endswith("-eval-2-1")}
    assert {result.jobs["eval"]} == newest


def test_a_deleted_job_is_made_anew_only_when_asked(spec: Spec, session: Session) -> None:
    result = make_run(spec, session).start()
    session.vertex.delete(name=result.jobs["eval"]).execute()
    with pytest.raises(JobFailedError, match=r"it was deleted.*--retry"):
        make_run(spec, session).start()
    again = make_run(spec, session, options=RunOptions(retry=True)).start()
    assert again.jobs["eval"] != result.jobs["eval"]
    assert again.jobs["train"] == result.jobs["train"]


def test_an_attempt_that_was_claimed_and_not_named_is_gone_on_with(spec: Spec, session: Session) -> None:
    fail = behave(make_run(spec, session), session, "fail-train")
    with pytest.raises(JobFailedError):
        make_run(spec, session).start()
    remove(session, fail)
    run = make_run(spec, session)
    prepared = run.upload()
    body = prepared.request("train", session.settings, 2, 2)
    run.objects.write(prepared.layout.claim("train-2"), Claim(body["labels"][INTENT_LABEL], "gone").encode())
    made = run.jobs.create(body)
    assert make_run(spec, session).start().jobs["train"] == made.name


@pytest.mark.long
def test_a_second_job_of_an_intent_that_turns_up_late_is_cancelled(spec: Spec, session: Session) -> None:
    hang = behave(make_run(spec, session), session, "hang-train")
    run = make_run(spec, session)
    late = run.submit("train")

    def make_a_double(seconds: float) -> None:
        if not doubles:
            body = run.upload().request("train", session.settings)
            doubles.append(run.jobs.create(body).name)
        elif run.jobs.get(doubles[0]).state.terminal and len(doubles) == 1:
            doubles.append("gone")
            remove(session, hang)
        blink(seconds)

    doubles: list[str] = []
    result = Run(spec, session, Told(), sleep=make_a_double).start()
    assert result.jobs["train"] == late.name
    assert run.jobs.get(doubles[0]).state is JobState.CANCELLED


def interrupting(nth: int, after: bool) -> Any:
    """A transport that is interrupted, as by Ctrl-C, around its nth request."""
    transport = AuthorizedSession(AnonymousCredentials())
    send, left = transport.request, [nth]

    def request(*args: Any, **options: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            return send(*args, **options)
        left[0] -= 1
        if left[0] == 0 and not after:
            raise KeyboardInterrupt
        reply = send(*args, **options)
        if left[0] == 0:
            raise KeyboardInterrupt
        return reply

    transport.request = request
    return transport


@pytest.mark.long
@pytest.mark.parametrize(("nth", "after"), [(3, False), (12, True), (20, False), (23, True), (24, True), (27, True)])
def test_a_run_interrupted_around_any_request_goes_on(spec: Spec, session: Session, nth: int, after: bool) -> None:
    broken = Session(session.settings)
    broken.__dict__["_transport"] = interrupting(nth, after)
    now = [0.0]

    def pass_time(seconds: float) -> None:
        now[0] += seconds
        blink(seconds)

    with pytest.raises(KeyboardInterrupt):
        Run(spec, broken, Told(), sleep=blink).start()
    broken.storage.close()
    Run(spec, session, Told(), clock=lambda: now[0], sleep=pass_time).start()
    assert kinds(session) == ["eval", "export", "train"]


@pytest.mark.long
def test_an_outage_is_waited_out_and_given_up_only_after_its_patience(
    spec: Spec, tmp_path: Path, quick_python: Path,
) -> None:
    faults = Faults()
    with faults.cloud(tmp_path / "c", quick_python) as cloud:
        session = Session(resolve(spec, endpoint=cloud.url, environ={}, home=spec.folder))
        told, now = Told(), [0.0]

        def pass_time(seconds: float) -> None:
            now[0] += seconds
            blink(seconds)
            if now[0] > 300:
                faults.choose = lambda *_: None

        def job_service(verb: str, path: str) -> Fault | None:
            return "busy" if "customJobs" in path and told.states else None

        def run(patience_s: float) -> Run:
            return Run(spec, session, told, RunOptions(patience_s=patience_s), lambda: now[0], pass_time)

        faults.choose = job_service
        with pytest.raises(OutageError, match="503"):
            run(patience_s=60.0).start()
        told.states.clear()
        run(patience_s=math.inf).start()
        assert any(text.startswith("waiting: J405") for text in told.texts)
        assert now[0] > 300
        assert kinds(session) == ["eval", "export", "train"]
        session.storage.close()


def test_cancelling_the_training_cancels_the_evaluation_that_waits_for_it(spec: Spec, session: Session) -> None:
    behave(make_run(spec, session), session, "hang-train")
    behave(make_run(spec, session), session, "hang-eval")
    jobs, told = Jobs(session), Told()

    def cancel_once_running(seconds: float) -> None:
        if ("eval", "RUNNING") in told.states and not cancelled:
            cancelled.append(run.followed["train"].info.name)
            jobs.cancel(cancelled[0])
        blink(seconds)

    cancelled: list[str] = []
    run = Run(spec, session, told, sleep=cancel_once_running)
    with pytest.raises(JobFailedError, match="CANCELLED"):
        run.start()
    states = {job.labels["gcpod_kind"]: job.state for job in jobs.list()}
    assert states == {"train": JobState.CANCELLED, "eval": JobState.CANCELLED}


def test_single_steps_reach_the_same_jobs(spec: Spec, session: Session) -> None:
    train = make_run(spec, session).submit("train")
    assert make_run(spec, session).submit("train").name == train.name
    result = make_run(spec, session).start()
    assert result.jobs["train"] == train.name
    folder, fetched = make_run(spec, session).fetch(spec.folder / "logs")
    assert fetched.files == 2
    assert fetched.bytes == sum(p.stat().st_size for p in folder.glob("*/*"))
    assert make_run(spec, session).fetch(spec.folder / "logs")[1].bytes == 0


def test_a_local_checkpoint_is_uploaded_and_named_in_the_config(spec: Spec, session: Session) -> None:
    for suffix in ("index", "data-00000-of-00001"):
        (spec.folder / f"ckpt-7.{suffix}").write_bytes(suffix.encode())
    tuned = replace(spec, model=replace(spec.model, fine_tune_checkpoint="ckpt-7"))
    prepared = make_run(tuned, session).upload()
    there = {info.uri.name.rsplit("/", 1)[-1] for info in Objects(session).list(prepared.layout.checkpoint)}
    assert there == {"ckpt-7.index", "ckpt-7.data-00000-of-00001"}
    assert f'fine_tune_checkpoint: "{prepared.layout.checkpoint / "ckpt-7"}"' in prepared.config


def test_a_training_that_left_no_model_is_said(spec: Spec, session: Session) -> None:
    result = make_run(spec, session).start()
    model = GcsUri.parse(result.saved_model) / "saved_model.pb"
    session.storage.bucket(model.bucket).blob(model.name).delete()
    with pytest.raises(StorageError, match="exported model"):
        make_run(spec, session).start()


def test_states_of_every_job_are_reported_in_order(spec: Spec, session: Session) -> None:
    told = Told()
    make_run(spec, session, told).start()
    for kind in ("train", "eval", "export"):
        states = [state for one, state in told.states if one == kind]
        order = [JobState.QUEUED.short, JobState.PENDING.short, JobState.RUNNING.short, JobState.SUCCEEDED.short]
        assert states == [state for state in order if state in states]
        assert states[-1] == "SUCCEEDED"


def test_an_evaluator_of_the_trainings_own_job_is_no_second_job(spec: Spec, session: Session) -> None:
    train = replace(spec.train, machine=MachineSpec("n1-standard-4"))
    spec = replace(spec, train=train, eval=replace(spec.eval, beside="pool"))
    result = make_run(spec, session).start()
    assert set(result.jobs) == {"train", "export"}
    assert kinds(session) == ["export", "train"]
    [made] = [job for job in Jobs(session).list() if job.labels["gcpod_kind"] == "train"]
    assert made.replicas == 2


def test_the_best_checkpoint_is_exported_only_when_all_were_evaluated(spec: Spec, session: Session) -> None:
    spec = replace(spec, export=replace(spec.export, checkpoint="best"))
    hang = behave(make_run(spec, session), session, "hang-eval")
    told = Told()

    def free(seconds: float) -> None:
        blink(seconds)
        if ("train", "SUCCEEDED") in told.states and ("eval", "RUNNING") in told.states and not freed:
            assert "export" not in kinds(session)
            freed.append(True)
            remove(session, hang)

    freed: list[bool] = []
    result = Run(spec, session, told, sleep=free).start()
    assert freed
    export = session.vertex.get(name=result.jobs["export"]).execute()
    arguments = export["jobSpec"]["workerPoolSpecs"][0]["containerSpec"]["args"]
    assert any(one.startswith("--trained_checkpoint_dir=") and one.endswith("/best") for one in arguments)


def test_who_may_not_read_logs_sees_progress_from_the_files(
    spec: Spec, tmp_path: Path, quick_python: Path,
) -> None:
    faults = Faults(lambda _, path: 403 if path.endswith("entries:list") else None)
    with faults.cloud(tmp_path / "c", quick_python) as cloud:
        session = Session(resolve(spec, endpoint=cloud.url, environ={}, home=spec.folder))
        hang = behave(make_run(spec, session), session, "hang-train")
        told, now = Told(), [0.0]

        def pass_time(seconds: float) -> None:
            now[0] += seconds
            blink(seconds)
            if now[0] > 300 and told.progressed and not freed:
                freed.append(True)
                remove(session, hang)

        freed: list[bool] = []
        Run(spec, session, told, clock=lambda: now[0], sleep=pass_time).start()
        assert any(one.step == 100 and one.loss == 0.5 for one in told.progressed)
        assert sum(text.startswith("going on without logs: E105") for text in told.texts) == 1
        session.storage.close()
