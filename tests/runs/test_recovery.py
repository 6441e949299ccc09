"""Jobs that die: what is submitted again, within which caps; what is cancelled, told, and found in the log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gcpod.errors import JobFailedError
from gcpod.inputs import RunOptions
from gcpod.jobs.recovery import FIRST_PAUSE_S
from gcpod.jobs.service import Jobs
from gcpod.localcloud.cloud import JobCloud
from gcpod.runner import Run
from gcpod.session import Session
from gcpod.spec import NotifySpec, RecoverySpec, ScheduleSpec, Spec
from tests.runs import Told, behave, blink, kinds, make_run, remove

pytestmark = pytest.mark.long

STOCKOUT = "The job failed with STOCKOUT: no spot capacity after 6 restarts."
LOST = "Internal error encountered: the worker was lost."


class Clock:
    """Time that only sleeping moves; ``then`` is called after each pause."""

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        self.now, self.then = 0.0, then

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        blink(seconds)
        self.then()


def killer(cloud: JobCloud, told: Told, kind: str, messages: list[str], code: int = 13) -> Callable[[], None]:
    """Ends each running job of a kind with the next message."""
    ended: set[str] = set()

    def kill() -> None:
        if not messages or cloud.scheduler is None or cloud.database is None:
            return
        for job in cloud.database.all():
            if job.body["labels"]["gcpod_kind"] == kind and job.state == "RUNNING" and job.id not in ended:
                ended.add(job.id)
                cloud.scheduler.jump(job.id, "FAILED", code, messages.pop(0))
                return

    return kill


def test_a_training_that_lost_its_machine_is_submitted_again_and_evaluated_anew(
    spec: Spec, session: Session, quick_cloud: JobCloud,
) -> None:
    hang = behave(make_run(spec, session), session, "hang-train")
    told, messages = Told(), [LOST, STOCKOUT]
    kill = killer(quick_cloud, told, "train", messages)
    clock = Clock(kill)
    run = Run(spec, session, told, clock=clock, sleep=clock.sleep)

    def kill_twice() -> None:
        kill()
        if not messages and kinds(session).count("train") == 3:
            clock.then = lambda: None
            remove(session, hang)

    clock.then = kill_twice
    result = run.start()
    trainings = [job for job in Jobs(session).list() if job.labels["gcpod_kind"] == "train"]
    assert len(trainings) == 3
    assert result.jobs["train"] == trainings[0].name
    assert "train: its machine failed; attempt 2 of 3 follows" in told.texts
    assert "train: no machine was to be had; attempt 3 of 3 follows in 2 min 0 s" in told.texts
    assert clock.now >= 2 * FIRST_PAUSE_S
    evaluations = {job.labels["gcpod_intent"].rpartition("-eval-")[2] for job in Jobs(session).list()
                   if job.labels["gcpod_kind"] == "eval"}
    assert "3-1" in evaluations
    assert result.final is not None


def test_attempts_end_at_their_cap_and_the_next_start_holds_to_it(
    spec: Spec, session: Session, quick_cloud: JobCloud,
) -> None:
    spec = replace(spec, recovery=RecoverySpec(attempts=2))
    hang = behave(make_run(spec, session), session, "hang-train")
    told = Told()
    clock = Clock(killer(quick_cloud, told, "train", [LOST, LOST]))
    with pytest.raises(JobFailedError, match="the worker was lost"):
        Run(spec, session, told, clock=clock, sleep=clock.sleep).start()
    why = "2 attempts were made, and recovery.attempts allows 2"
    assert f"train: its machine failed; no new attempt: {why}" in told.texts
    assert kinds(session).count("train") == 2
    with pytest.raises(JobFailedError, match=r"recovery.attempts allows 2.*--retry"):
        make_run(spec, session).start()
    remove(session, hang)
    more = replace(spec, recovery=RecoverySpec(attempts=3))
    assert make_run(more, session).start().jobs["train"]
    assert kinds(session).count("train") == 3


def test_an_evaluation_and_an_export_are_recovered_too(
    spec: Spec, session: Session, quick_cloud: JobCloud,
) -> None:
    behave(make_run(spec, session), session, "hang-eval")
    told = Told()
    kill = killer(quick_cloud, told, "eval", [LOST])
    hang = make_run(spec, session).upload().layout.root / "behave" / "hang-eval"

    def go_on() -> None:
        kill()
        if not freed and kinds(session).count("eval") == 2:
            freed.append(True)
            remove(session, hang)

    freed: list[bool] = []
    clock = Clock(go_on)
    result = Run(spec, session, told, clock=clock, sleep=clock.sleep).start()
    assert kinds(session) == ["eval", "eval", "export", "train"]
    assert result.final is not None


def test_money_caps_attempts(
    spec: Spec, session: Session, quick_cloud: JobCloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("date: 2026-11-21\ncurrency: USD\nsource: a test\nregions:\n  local:\n    n1-standard-4: 1.00\n")
    monkeypatch.setenv("GCPOD_PRICES", str(prices))
    spec = replace(spec, recovery=RecoverySpec(max_cost="0.50"))
    behave(make_run(spec, session), session, "hang-train")
    told = Told()
    clock = Clock(killer(quick_cloud, told, "train", [LOST]))
    with pytest.raises(JobFailedError):
        Run(spec, session, told, clock=clock, sleep=clock.sleep).start()
    assert kinds(session).count("train") == 1
    [said] = [text for text in told.texts if "recovery.max_cost" in text]
    assert "recovery.max_cost allows 0.50" in said


def test_a_spot_job_whose_code_fails_is_not_run_again(spec: Spec, session: Session) -> None:
    spec = replace(spec, train=replace(spec.train, schedule=ScheduleSpec("spot")))
    behave(make_run(spec, session), session, "fail-train")
    with pytest.raises(JobFailedError):
        make_run(spec, session).start()
    assert kinds(session).count("train") == 1


def test_what_the_log_shows_is_told_and_is_the_errors_code(spec: Spec, session: Session) -> None:
    behave(make_run(spec, session), session, "killed-train")
    told = Told()
    with pytest.raises(JobFailedError, match="J406") as failed:
        make_run(spec, session, told).start()
    assert failed.value.code == "J406"
    assert any(text.startswith("train: error: J406") for text in told.texts)
    with pytest.raises(JobFailedError, match=r"J406: going on with the train job.*--retry"):
        make_run(spec, session).start()


def test_a_loss_that_is_no_number_cancels_the_training_where_that_is_asked(spec: Spec, session: Session) -> None:
    spec = replace(spec, train=replace(spec.train, cancel_on_nan=True))
    behave(make_run(spec, session), session, "nan-train")
    behave(make_run(spec, session), session, "hang-train")
    with pytest.raises(JobFailedError, match=r"D105: .*the loss was nan at step 100") as failed:
        make_run(spec, session).start()
    assert failed.value.code == "D105"
    [train] = [job for job in Jobs(session).list() if job.labels["gcpod_kind"] == "train"]
    assert train.state.short == "CANCELLED"


def test_a_stall_is_told_once(spec: Spec, session: Session) -> None:
    hang = behave(make_run(spec, session), session, "hang-train")
    told = Told()

    def free() -> None:
        if clock.now > 3 * 3600 and not freed:
            freed.append(True)
            remove(session, hang)

    freed: list[bool] = []
    clock = Clock(free)
    Run(spec, session, told, clock=clock, sleep=clock.sleep).start()
    [said] = [text for text in told.texts if "has made no step" in text]
    assert said.startswith("warning: train has made no step for 30 min")
    assert "after step 100" in said


def test_each_line_of_a_log_is_kept_once_over_interruptions(spec: Spec, session: Session) -> None:
    hang = behave(make_run(spec, session), session, "hang-train")

    def interrupt(_: float) -> None:
        blink(0.02)
        looks.append(True)
        if len(looks) % 3 == 0:
            raise KeyboardInterrupt

    looks: list[bool] = []
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            Run(spec, session, Told(), sleep=interrupt).start()
    remove(session, hang)
    result = make_run(spec, session).start()
    lines = (spec.folder / "runs" / result.run_id / "logs" / "train-1.log").read_text().splitlines()
    assert sum("Step 100 per-step time" in line for line in lines) == 1
    assert sum("'Loss/total_loss': 0.5" in line for line in lines) == 1
    assert lines[-1].endswith("service Job completed successfully.")
    assert len(set(lines)) == len(lines)


def test_who_wants_to_know_is_told_of_every_end(spec: Spec, session: Session, tmp_path: Path) -> None:
    heard = tmp_path / "heard.json"
    spec = replace(spec, notify=NotifySpec(command=f"sh -c 'cat >> {heard}'"))
    fail = behave(make_run(spec, session), session, "fail-train")
    with pytest.raises(JobFailedError):
        make_run(spec, session).start()
    assert '"state": "FAILED"' in heard.read_text()
    assert "non-zero status of 1" in heard.read_text()
    remove(session, fail)
    heard.unlink()
    told = Told()
    broken = replace(spec, notify=NotifySpec(command="no-such-program-anywhere"))
    make_run(spec, session, options=RunOptions(retry=True)).start()
    assert '"state": "SUCCEEDED"' in heard.read_text()
    heard.unlink()
    make_run(spec, session).start()
    assert not heard.exists()
    make_run(broken, session, told, RunOptions(again=True)).start()
    assert any(text.startswith("warning: the command no-such-program-anywhere") for text in told.texts)


def test_one_pass_over_a_checkpoint_is_a_job_of_its_own_that_no_run_ends(spec: Spec, session: Session) -> None:
    hang = behave(make_run(spec, session), session, "hang-eval")
    once = make_run(spec, session).submit("eval", "ckpt-1")
    assert make_run(spec, session).submit("eval", "ckpt-1").name == once.name
    looks: list[bool] = []

    def free(seconds: float) -> None:
        looks.append(True)
        if len(looks) == 20:
            remove(session, hang)
        blink(seconds)

    result = Run(spec, session, Told(), sleep=free).start()
    assert result.jobs["eval"] != once.name
    assert Jobs(session).get(once.name).state.short == "SUCCEEDED"


@pytest.mark.parametrize(("state", "again"), [("EXPIRED", True), ("PARTIALLY_SUCCEEDED", False), ("FAILED", False)])
def test_every_bad_end_of_a_training(
    spec: Spec, session: Session, quick_cloud: JobCloud, state: str, again: bool,
) -> None:
    hang = behave(make_run(spec, session), session, "hang-train")
    ended: list[str] = []

    def end() -> None:
        assert quick_cloud.scheduler is not None
        assert quick_cloud.database is not None
        for job in quick_cloud.database.all():
            if job.body["labels"]["gcpod_kind"] == "train" and job.state == "RUNNING" and not ended:
                ended.append(job.id)
                remove(session, hang)
                quick_cloud.scheduler.jump(job.id, state, 0, "")

    clock = Clock(end)
    run = Run(spec, session, Told(), clock=clock, sleep=clock.sleep)
    if again:
        assert run.start().final is not None
    else:
        with pytest.raises(JobFailedError, match=state):
            run.start()
    assert kinds(session).count("train") == 1 + again


def test_a_training_in_a_state_of_the_future_is_watched_on(
    spec: Spec, session: Session, quick_cloud: JobCloud,
) -> None:
    hang = behave(make_run(spec, session), session, "hang-train")
    seen: list[str] = []

    def move() -> None:
        assert quick_cloud.scheduler is not None
        assert quick_cloud.database is not None
        [job] = [one for one in quick_cloud.database.all() if one.body["labels"]["gcpod_kind"] == "train"]
        for state in ("BEING_THOUGHT_ABOUT", "PAUSED", "UPDATING", "RUNNING"):
            if state not in seen and job.state != "QUEUED" and job.state != "PENDING":
                seen.append(state)
                quick_cloud.scheduler.jump(job.id, state, 0, "")
                return
        if len(seen) == 4:
            seen.append("over")
            remove(session, hang)

    told = Told()
    clock = Clock(move)
    assert Run(spec, session, told, clock=clock, sleep=clock.sleep).start().final is not None
    states = [state for kind, state in told.states if kind == "train"]
    assert [state for state in states if state in ("UNSPECIFIED", "PAUSED", "UPDATING")] == [
        "UNSPECIFIED", "PAUSED", "UPDATING"]
