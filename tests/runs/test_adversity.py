"""Runs among other laptops, deleted jobs, refused calls and restarts: nothing is lost, or left running."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gcpod.errors import JobFailedError, OutageError
from gcpod.inputs import RunOptions
from gcpod.jobs.budget import budget_of
from gcpod.jobs.prices import Money
from gcpod.jobs.service import Jobs
from gcpod.localcloud.cloud import JobCloud
from gcpod.localcloud.config import CloudConfig, Limit, Region
from gcpod.outcome import spent
from gcpod.runner import Run
from gcpod.session import Session
from gcpod.settings import resolve
from gcpod.spec import NotifySpec, Spec, SweepSpec
from gcpod.status import JobInfo
from gcpod.storage.objects import Objects
from gcpod.sweeping import Sweep
from tests.jobs import Faults
from tests.runs import Told, behave, blink, make_run, remove
from tests.runs.test_recovery import LOST, STOCKOUT
from tests.waiting import until

pytestmark = pytest.mark.long

EXIT = "The replica workerpool0-0 exited with a non-zero status of 137."


def of_kind(session: Session, kind: str) -> list[JobInfo]:
    """The jobs of a kind, the oldest first."""
    return [job for job in reversed(Jobs(session).list()) if job.labels["gcpod_kind"] == kind]


def states(session: Session) -> dict[str, str]:
    """The state of each job by its intent, without the run's name."""
    return {"-".join(job.labels["gcpod_intent"].split("-")[2:]): job.state.short for job in Jobs(session).list()}


def running(session: Session, kind: str) -> JobInfo:
    [job, *_] = until(lambda: [job for job in of_kind(session, kind) if job.state.short == "RUNNING"])
    return job


def end(cloud: JobCloud, job: JobInfo, message: str = LOST, code: int = 13, state: str = "FAILED") -> None:
    assert cloud.scheduler is not None
    cloud.scheduler.jump(job.id, state, code, message)


def look(run: Run, done: Callable[[], object], pass_time: Callable[[], object] = lambda: None) -> None:
    """Looks at the jobs again and again, as the loop does, until something has happened."""
    def once() -> bool:
        pass_time()
        run.board.poll()
        run.advance()
        return bool(done())

    until(once)


def started(spec: Spec, session: Session, clock: Callable[[], float] = time.monotonic) -> Run:
    """A run whose training and evaluation hang."""
    behave(make_run(spec, session), session, "hang-train")
    behave(make_run(spec, session), session, "hang-eval")
    run = Run(spec, session, Told(), clock=clock, sleep=blink)
    run.begin()
    look(run, lambda: "eval" in run.followed)
    running(session, "train")
    running(session, "eval")
    return run


def let_go(run: Run, session: Session) -> None:
    for name in ("hang-train", "hang-eval"):
        remove(session, run.crew.prepared.layout.root / "behave" / name)


def test_a_slower_laptop_goes_on_with_the_attempt_that_another_submitted(
    spec: Spec, session: Session, quick_cloud: JobCloud,
) -> None:
    first = started(spec, session)
    second = make_run(spec, session)
    second.begin()
    look(second, lambda: "eval" in second.followed)
    end(quick_cloud, running(session, "train"))
    look(first, lambda: first.crew.train_attempt == 2)
    look(second, lambda: second.crew.train_attempt == 2)
    assert second.crew.train.info.name == first.crew.train.info.name
    let_go(first, session)
    look(first, lambda: first.over)
    look(second, lambda: second.over)
    assert len(of_kind(session, "train")) == 2


def test_a_laptop_that_slept_ends_no_newer_evaluation(
    spec: Spec, session: Session, quick_cloud: JobCloud,
) -> None:
    awake = started(spec, session)
    asleep = make_run(spec, session)
    asleep.begin()
    end(quick_cloud, running(session, "train"))
    look(awake, lambda: awake.crew.train_attempt == 2 and "eval" in awake.followed)
    until(lambda: states(session)["eval-2-1"] == "RUNNING")
    for _ in range(5):
        asleep.board.poll()
        asleep.advance()
    assert states(session)["eval-2-1"] == "RUNNING"


@pytest.mark.parametrize("message", [EXIT, LOST])
def test_what_evaluates_a_training_that_died_unwatched_ends_with_the_next_start(
    spec: Spec, session: Session, quick_cloud: JobCloud, message: str,
) -> None:
    run = started(spec, session)
    run.close()
    end(quick_cloud, running(session, "train"), message, 3 if message == EXIT else 13)
    again = make_run(spec, session)
    if message == EXIT:
        with pytest.raises(JobFailedError, match="J406"):
            again.start()
    else:
        again.begin()
        look(again, lambda: "eval" in again.followed)
    until(lambda: states(session)["eval-1-1"] == "CANCELLED")


def test_a_sweep_that_starts_again_ends_it_too(spec: Spec, session: Session, quick_cloud: JobCloud) -> None:
    swept = replace(spec, sweep=SweepSpec(runs=({"train.batch_size": "4"},)))
    first = Sweep(swept, session, Told(), sleep=blink)
    started(first.members[0].variant.spec, session).close()
    end(quick_cloud, running(session, "train"))
    again = Sweep(swept, session, Told(), sleep=blink)
    member = again.members[0]
    member.advance()
    look(member.run, lambda: "eval" in member.run.followed)
    until(lambda: states(session)["eval-1-1"] == "CANCELLED")
    assert states(session)["eval-2-1"] != "CANCELLED"


def test_an_evaluation_that_waits_for_its_next_attempt_is_forgotten_with_its_training(
    spec: Spec, session: Session, quick_cloud: JobCloud,
) -> None:
    spec = replace(spec, export=replace(spec.export, checkpoint="best"))
    now = [0.0]
    run = started(spec, session, lambda: now[0])
    end(quick_cloud, running(session, "eval"), STOCKOUT, 8)
    look(run, lambda: any("no machine was to be had" in text for text in told(run).texts))
    end(quick_cloud, running(session, "train"))
    look(run, lambda: run.crew.train_attempt == 2)
    let_go(run, session)
    look(run, lambda: run.over, lambda: now.__setitem__(0, now[0] + 5))
    assert run.result is not None
    assert states(session)["eval-2-1"] == "SUCCEEDED"
    assert "eval-1-2" not in states(session)


def told(run: Run) -> Told:
    assert isinstance(run.reporter, Told)
    return run.reporter


def test_an_evaluation_given_up_counts_no_more_for_the_next_training(
    spec: Spec, session: Session, quick_cloud: JobCloud,
) -> None:
    run = started(spec, session)
    Jobs(session).cancel(running(session, "eval").name)
    look(run, lambda: run.followed["eval"].info.state.short == "CANCELLED")
    end(quick_cloud, running(session, "train"))
    look(run, lambda: run.crew.train_attempt == 2)
    let_go(run, session)
    look(run, lambda: run.over)
    assert states(session)["eval-2-1"] == "SUCCEEDED"


def test_no_evaluation_is_repeated_for_a_training_that_is_given_up(
    spec: Spec, session: Session, quick_cloud: JobCloud,
) -> None:
    now = [0.0]
    run = started(spec, session, lambda: now[0])
    end(quick_cloud, running(session, "eval"), STOCKOUT, 8)
    look(run, lambda: any("no machine was to be had" in text for text in told(run).texts))
    end(quick_cloud, running(session, "train"), EXIT, 3)
    with pytest.raises(JobFailedError, match="J406"):
        look(run, lambda: False, lambda: now.__setitem__(0, now[0] + 30))
    assert len(of_kind(session, "eval")) == 1


def test_a_training_is_watched_on_though_its_evaluation_failed_for_good(
    spec: Spec, session: Session, quick_cloud: JobCloud,
) -> None:
    run = started(spec, session)
    end(quick_cloud, running(session, "eval"), EXIT, 3)
    look(run, lambda: run.followed["eval"].info.state.terminal)
    run.close()
    again = make_run(spec, session)
    again.begin()
    look(again, lambda: "eval" in again.followed)
    let_go(again, session)
    with pytest.raises(JobFailedError, match="going on with the eval job"):
        look(again, lambda: False)
    assert states(session)["export-1-1"] == "SUCCEEDED"


def test_a_job_that_somebody_deleted_is_a_failed_one_and_ends_no_sweep(
    spec: Spec, session: Session, quick_cloud: JobCloud,
) -> None:
    sweep = Sweep(replace(spec, sweep=SweepSpec(grid={"train.batch_size": ("4", "8")})), session, Told())
    first = sweep.members[0].run.upload()
    Objects(session).write(first.layout.root / "behave" / "hang-train", b"")
    deleted: list[str] = []

    def delete(seconds: float) -> None:
        blink(seconds)
        jobs = [job for job in of_kind(session, "train") if job.labels["gcpod_run"] == first.run_id]
        if jobs and not deleted and jobs[0].state.short == "RUNNING":
            end(quick_cloud, jobs[0])
            Jobs(session).delete(jobs[0].name)
            deleted.append(jobs[0].name)

    sweep.sleep = delete
    rows = {row.run_id: row for row in sweep.start().rows}
    assert deleted
    assert sorted(row.state for row in rows.values()) == ["FAILED", "SUCCEEDED"]
    assert "it was deleted" in rows[first.run_id].error


def test_logs_that_cannot_be_read_stop_nothing(spec: Spec, tmp_path: Path, quick_python: Path) -> None:
    faults = Faults(lambda _, path: 429 if path.endswith("entries:list") else None)
    with faults.cloud(tmp_path / "c", quick_python) as cloud:
        session, now = Session(resolve(spec, endpoint=cloud.url, environ={}, home=spec.folder)), [0.0]

        def pass_time(seconds: float) -> None:
            now[0] += seconds
            blink(seconds)

        heard = Told()
        assert Run(spec, session, heard, clock=lambda: now[0], sleep=pass_time).start().final is not None
        assert any(text.startswith("logs: waiting: J405") for text in heard.texts)
        session.storage.close()


def test_who_may_not_cancel_is_told_and_the_run_goes_on(spec: Spec, tmp_path: Path, quick_python: Path) -> None:
    faults = Faults(lambda _, path: 403 if path.endswith(":cancel") else None)
    with faults.cloud(tmp_path / "c", quick_python) as cloud:
        session = Session(resolve(spec, endpoint=cloud.url, environ={}, home=spec.folder))
        run = started(spec, session)
        end(cloud, running(session, "train"))
        look(run, lambda: run.crew.train_attempt == 2)
        let_go(run, session)
        look(run, lambda: run.over)
        assert any(text.startswith("warning: E105") for text in told(run).texts)
        session.storage.close()


def test_a_bucket_out_of_reach_at_the_end_is_waited_for(spec: Spec, tmp_path: Path, quick_python: Path) -> None:
    away = [True]
    faults = Faults(lambda verb, path: 503 if away[0] and verb == "GET" and "saved_model.pb" in path else None)
    spec = replace(spec, notify=NotifySpec(command=f"sh -c 'cat >> {tmp_path}/heard'"))
    with faults.cloud(tmp_path / "c", quick_python) as cloud:
        session = Session(resolve(spec, endpoint=cloud.url, environ={}, home=spec.folder))
        looks: list[float] = []

        def come_back(seconds: float) -> None:
            blink(seconds)
            if "export-1-1" in states(session) and states(session)["export-1-1"] == "SUCCEEDED":
                looks.append(seconds)
                away[0] = len(looks) < 3

        run = Run(spec, session, Told(), sleep=come_back)
        run.objects = Objects(session, 0.2)
        assert run.start().final is not None
        heard = (tmp_path / "heard").read_text()
        assert '"SUCCEEDED"' in heard
        assert '"FAILED"' not in heard
        session.storage.close()


def test_a_quota_that_one_run_waits_for_holds_up_no_other(spec: Spec, tmp_path: Path, quick_python: Path) -> None:
    limit = Limit("custom_model_training_nvidia_t4_gpus", 0)
    region = Region("us-central1", accelerators=("NVIDIA_TESLA_T4",), quota=(limit,), short="refuse")
    config = CloudConfig((region,))
    made = JobCloud(tmp_path / "c", cache=tmp_path, environment_of=lambda *_: quick_python, config=config)
    cpu = replace(spec.export.machine, type="n1-standard-4")
    spec = replace(spec, train=replace(spec.train, machine=cpu), sweep=SweepSpec(grid={"train.batch_size": ("4", "8")}))
    with made as cloud:
        local = resolve(spec, endpoint=cloud.url, environ={}, home=spec.folder)
        session = Session(replace(local, region=replace(local.region, value="us-central1")))
        sweep = Sweep(spec, session, Told(), RunOptions(), sleep=blink)
        for member in sweep.members:
            member.advance()

        def looked() -> bool:
            sweep.board.poll()
            for member in sweep.members:
                try:
                    member.advance()
                except OutageError:
                    refused.append(member)
            return len([job for job in of_kind(session, "export") if job.state.short == "SUCCEEDED"]) == 2

        refused: list[object] = []
        until(looked)
        assert refused
        assert of_kind(session, "eval") == []
        session.storage.close()


def test_what_cannot_be_kept_here_stops_no_job(spec: Spec, session: Session) -> None:
    hang = behave(make_run(spec, session), session, "hang-train")
    run = make_run(spec, session)
    folder = spec.folder / "runs" / run.upload().run_id
    (folder / "tensorboard").parent.mkdir(parents=True, exist_ok=True)
    (folder / "tensorboard").write_text("in the way")
    run.begin()
    look(run, lambda: any(text.startswith("going on without event files") for text in told(run).texts))
    (folder / "tensorboard").unlink()
    remove(session, hang)
    look(run, lambda: run.over)


def test_claims_that_somebody_removed_are_made_anew(spec: Spec, session: Session, quick_cloud: JobCloud) -> None:
    run = started(spec, session)
    remove(session, run.crew.prepared.layout.claim("train-1"))
    lost = running(session, "train")
    end(quick_cloud, lost)
    look(run, lambda: run.crew.train.info.name != lost.name)


def test_the_log_of_a_job_that_nobody_watched_is_whole_too(spec: Spec, session: Session) -> None:
    run = make_run(spec, session)
    run.begin()
    run.close()
    until(lambda: of_kind(session, "train")[0].state.short == "SUCCEEDED")
    result = make_run(spec, session).start()
    log = spec.folder / "runs" / result.run_id / "logs" / "train-1.log"
    assert log.read_text().splitlines()[-1].endswith("service Job completed successfully.")


def test_a_new_attempt_asked_for_while_the_last_one_is_being_cancelled(
    spec: Spec, session: Session, quick_cloud: JobCloud,
) -> None:
    run = started(spec, session)
    run.close()
    job = running(session, "train")
    end(quick_cloud, job, "", 0, "CANCELLING")
    again = make_run(spec, session, options=RunOptions(retry=True))
    again.begin()
    end(quick_cloud, job, "cancelled", 1, "CANCELLED")
    look(again, lambda: again.crew.train_attempt == 2)
    let_go(again, session)
    look(again, lambda: again.over)


def test_an_interrupted_sweep_lets_go_of_its_logs(spec: Spec, session: Session) -> None:
    spec = replace(spec, sweep=SweepSpec(runs=({"train.batch_size": "4"},)))

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Sweep(spec, session, Told(), sleep=interrupt).start()
    heard = Told()
    Sweep(spec, session, heard, sleep=blink).start()
    assert not any("another process" in text for text in heard.texts)


@pytest.fixture
def priced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    prices = tmp_path / "prices.yaml"
    prices.write_text(
        "date: 2026-11-21\ncurrency: USD\nsource: a test\nregions:\n  local:\n    n1-standard-4: 3600.00\n")
    monkeypatch.setenv("GCPOD_PRICES", str(prices))
    return prices


def test_every_attempt_is_paid_for_also_after_a_restart(
    spec: Spec, session: Session, quick_cloud: JobCloud, priced: Path,
) -> None:
    run = started(spec, session)
    until(lambda: time.time() % 1 > 0.9)
    end(quick_cloud, running(session, "train"))
    look(run, lambda: run.crew.train_attempt == 2)
    let_go(run, session)
    look(run, lambda: run.over)
    seconds = sum(job.run_s for job in Jobs(session).list())
    assert spent(spec, session, run.crew.made()) == Money(pytest.approx(seconds), "USD")  # type: ignore[arg-type]
    again = make_run(spec, session)
    again.start()
    assert len(again.crew.made()) == 5
    assert spent(spec, session, again.crew.made()) == spent(spec, session, run.crew.made())


def test_prices_that_cannot_be_read_cost_no_run_its_end(spec: Spec, session: Session, priced: Path) -> None:
    priced.unlink()
    heard = spec.folder / "heard"
    spec = replace(spec, notify=NotifySpec(command=f"sh -c 'cat >> {heard}'"))
    assert make_run(spec, session).start().final is not None
    assert '"cost": null' in heard.read_text()
    swept = replace(spec, sweep=SweepSpec(runs=({"train.batch_size": "4"},)))
    rows = Sweep(swept, session, Told(), sleep=blink).start()
    assert [row.state for row in rows.rows] == ["SUCCEEDED"]


def test_a_sum_of_money_holds_over_attempts(
    spec: Spec, session: Session, quick_cloud: JobCloud, priced: Path,
) -> None:
    priced.write_text(priced.read_text().replace("3600.00", "1.00"))
    capped = budget_of(spec, session.settings, max_cost="3.00").spec
    behave(make_run(capped, session), session, "hang-train")
    run = make_run(capped, session)
    run.begin()
    end(quick_cloud, running(session, "train"))
    with pytest.raises(JobFailedError, match="the worker was lost"):
        look(run, lambda: False)
    assert len(of_kind(session, "train")) == 1


def test_a_job_taken_up_with_another_time_limit_is_said_to_keep_it(spec: Spec, session: Session) -> None:
    behave(make_run(spec, session), session, "hang-train")
    make_run(spec, session).submit("train")
    shorter = replace(spec, train=replace(spec.train, timeout_hours=0.5))
    run = make_run(shorter, session)
    run.begin()
    assert "train: it was submitted with a time limit of 24 h 0 min, which it keeps" in told(run).texts


def test_a_refused_quota_leaves_no_claim_behind(spec: Spec, tmp_path: Path, quick_python: Path) -> None:
    limit = Limit("custom_model_training_cpus", 0)
    config = CloudConfig((Region("local", quota=(limit,), short="refuse"),))
    made = JobCloud(tmp_path / "c", cache=tmp_path, environment_of=lambda *_: quick_python, config=config)
    with made as cloud:
        session = Session(resolve(spec, endpoint=cloud.url, environ={}, home=spec.folder))
        run = make_run(spec, session)
        with pytest.raises(OutageError, match=r"J403: .*custom_model_training_cpus"):
            run.submit("train")
        assert Objects(session).read(run.crew.prepared.layout.claim("train-1")) is None
        session.storage.close()
