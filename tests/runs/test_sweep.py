"""Sweeps on a local cloud: many runs, a bounded number at once, records and packages sent once, one table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gcpod.inputs import RunOptions
from gcpod.jobs.service import Jobs
from gcpod.localcloud.cloud import JobCloud
from gcpod.session import Session
from gcpod.spec import Spec, SweepSpec
from gcpod.specfile import render_spec
from gcpod.storage.objects import Objects
from gcpod.sweeping import Sweep
from gcpod.uris import GcsUri
from tests.runs import Told, blink, kinds, remove

GRID = {"train.learning_rate": ("0.01", "0.02"), "train.batch_size": ("4", "8")}


def make(spec: Spec, session: Session, told: Told | None = None, options: RunOptions | None = None) -> Sweep:
    return Sweep(spec, session, told or Told(), options, sleep=blink)


def test_a_grid_runs_some_at_a_time_over_shared_records_to_one_table(
    spec: Spec, session: Session, quick_cloud: JobCloud,
) -> None:
    spec = replace(spec, sweep=SweepSpec(grid=GRID, at_once=2))
    told, most = Told(), [0]

    def look(seconds: float) -> None:
        trainings = [job for job in Jobs(session).list() if not job.state.terminal]
        most[0] = max(most[0], len({job.labels["gcpod_run"] for job in trainings}))
        blink(seconds)

    results = Sweep(spec, session, told, sleep=look).start()
    assert most[0] <= 2
    assert len(results.rows) == 4
    assert {row.state for row in results.rows} == {"SUCCEEDED"}
    assert len({row.run_id for row in results.rows}) == 4
    assert [row.metrics.ap for row in results.rows if row.metrics] == [0.5] * 4
    assert {tuple(row.values.values()) for row in results.rows} == {(rate, size) for rate in GRID["train.learning_rate"]
                                                                    for size in GRID["train.batch_size"]}
    assert len(Jobs(session).list()) == 12
    bucket = session.settings.bucket_uri
    shared = {info.uri.name.split("/")[1] for info in Objects(session).list(bucket / "datasets")}
    assert len(shared) == 1
    sent = [text for text in told.texts if "/datasets/" in text and "uploaded" in text]
    assert [text for text in sent if "uploaded 0 files" not in text] == sent[:1]


def test_a_second_start_only_reads(spec: Spec, session: Session) -> None:
    spec = replace(spec, sweep=SweepSpec(runs=({"train.batch_size": "4"}, {"train.batch_size": "8"})))
    first = make(spec, session).start()
    second = make(spec, session).start()
    assert [row.run_id for row in second.rows] == [row.run_id for row in first.rows]
    assert len(Jobs(session).list()) == 6


def test_a_run_that_fails_ends_no_other_and_can_be_tried_again(spec: Spec, session: Session) -> None:
    spec = replace(spec, sweep=SweepSpec(runs=({"train.batch_size": "4"}, {"train.batch_size": "8"}), at_once=1))
    sweep = make(spec, session)
    layout = sweep.members[0].run.upload().layout
    fail = layout.root / "behave" / "fail-train"
    Objects(session).write(fail, b"")
    rows = sweep.start().rows
    assert [row.state for row in rows] == ["SUCCEEDED", "FAILED"]
    assert "non-zero status of 1" in rows[1].error
    session.storage.bucket(fail.bucket).blob(fail.name).delete()
    again = make(spec, session, options=RunOptions(retry=True)).start()
    assert {row.state for row in again.rows} == {"SUCCEEDED"}
    assert kinds(session).count("train") == 3
    assert kinds(session).count("export") == 2


@pytest.mark.long
def test_an_interrupted_sweep_goes_on(spec: Spec, session: Session) -> None:
    spec = replace(spec, sweep=SweepSpec(grid={"train.batch_size": ("4", "8")}))
    hang = make(spec, session).members[0].run.upload().layout.root / "behave" / "hang-train"
    Objects(session).write(hang, b"")
    pauses: list[float] = []

    def interrupt(seconds: float) -> None:
        blink(seconds)
        pauses.append(seconds)
        if len(pauses) in (3, 9, 20):
            raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            Sweep(spec, session, Told(), sleep=interrupt).start()
    remove(session, hang)
    assert {row.state for row in make(spec, session).start().rows} == {"SUCCEEDED"}
    assert len(Jobs(session).list()) == 6


@pytest.mark.long
def test_the_command_prints_the_table(gcpod: Any, spec: Spec, quick_cloud: JobCloud) -> None:
    swept = replace(spec, sweep=SweepSpec(grid={"train.batch_size": ("4", "8")}))
    file = spec.folder / "gcpod.yaml"
    file.write_text(render_spec(swept))
    planned = gcpod("sweep", "--file", file, "--endpoint", quick_cloud.url, "--dry-run")
    assert planned.code == 0
    assert "[2] train.batch_size: 8: at worst" in planned.out
    assert "2 runs, 2 at a time" in planned.out
    done = gcpod("sweep", "--file", file, "--endpoint", quick_cloud.url, "--json")
    assert done.code == 0, done.err
    assert [row["state"] for row in done.json] == ["SUCCEEDED"] * 2
    assert {row["values"]["train.batch_size"] for row in done.json} == {"4", "8"}
    shown = gcpod("sweep", "--file", file, "--endpoint", quick_cloud.url)
    assert "train.batch_size" in shown.out
    assert shown.out.count("SUCCEEDED") >= 2


def test_the_shared_folder_is_named_by_what_is_in_it(spec: Spec, session: Session) -> None:
    spec = replace(spec, sweep=SweepSpec(grid={"train.batch_size": ("4", "8")}))
    prepared = [member.run.upload() for member in make(spec, session).members]
    assert prepared[0].layout.data == prepared[1].layout.data
    assert prepared[0].layout.packages == prepared[1].layout.packages
    assert prepared[0].layout.root != prepared[1].layout.root
    assert isinstance(prepared[0].layout.data, GcsUri)
