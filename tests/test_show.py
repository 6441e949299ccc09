"""A run as a terminal and as a log file see it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from gcpod.cli.show import TAIL, Screen, describe, show_result
from gcpod.jobs.logs import LogLine
from gcpod.results.report import RunResult
from gcpod.status import JobInfo, JobState, Metrics, Progress
from gcpod.storage.transfer import Progress as Moved


def info(state: JobState) -> JobInfo:
    return JobInfo("projects/1/locations/local/customJobs/7", "shapes-train", state)


def test_progress_is_described_as_far_as_it_is_known() -> None:
    assert describe(Progress()) == ""
    assert describe(Progress(step=100, total_steps=500)) == ""
    known = Progress(step=200, total_steps=500, loss=0.25, steps_per_s=10.0)
    assert describe(known) == "loss 0.250, 10.0 steps/s, 0:30 left"
    assert describe(replace(known, checkpoint="ckpt-3")).endswith("0:30 left, saved ckpt-3")
    assert describe(Progress(step=0, total_steps=72_000, steps_per_s=10.0)) == "10.0 steps/s, 2h 0min left"


@pytest.mark.parametrize("terminal", [False, True])
def test_step_loss_rate_and_time_left_are_shown(terminal: bool) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120)
    with Screen(console) as screen:
        screen.state("train", info(JobState.RUNNING))
        screen.progress("train", Progress(step=200, total_steps=500, loss=0.25, steps_per_s=10.0))
        screen.state("train", info(JobState.SUCCEEDED))
    text = out.getvalue()
    assert "train: RUNNING projects/1/locations/local/customJobs/7" in text
    assert "0.250" in text
    assert "10.0 steps/s" in text
    assert "0:30 left" in text
    assert ("\x1b[" in text) is terminal


def test_bytes_rate_and_time_left_of_an_upload_are_shown_on_a_terminal_only() -> None:
    out = io.StringIO()
    with Screen(Console(file=out, force_terminal=True, width=120)) as screen:
        for number in (1, 2, 3):
            screen.moving(Moved(number, 4, number * 50_000_000, 200_000_000))
    assert "150/200" in out.getvalue()
    assert "3/4 files" in out.getvalue()
    assert "MB/s" in out.getvalue()
    assert "left" in out.getvalue()
    quiet = io.StringIO()
    with Screen(Console(file=quiet, width=120)) as screen:
        screen.moving(Moved(1, 4, 50, 200))
    assert quiet.getvalue() == ""


def test_a_failed_job_shows_the_end_of_its_log_and_others_do_not() -> None:
    out = io.StringIO()
    with Screen(Console(file=out, width=120)) as screen:
        screen.lines("train", [LogLine("", "ERROR", "workerpool0-0", f"line {n}") for n in range(TAIL + 5)])
        screen.state("eval", info(JobState.SUCCEEDED))
        assert "line" not in out.getvalue()
        screen.state("train", info(JobState.FAILED))
    assert "train | line 19" in out.getvalue()
    assert "train | line 4\n" not in out.getvalue()


def test_lines_of_the_service_are_always_shown_and_markup_is_not_obeyed() -> None:
    out = io.StringIO()
    with Screen(Console(file=out, width=120)) as screen:
        screen.lines("train", [LogLine("", "INFO", "service", "making [bold]the runtime[/bold]")])
    assert out.getvalue() == "train | making [bold]the runtime[/bold]\n"


def test_the_result_names_everything_a_newcomer_looks_for() -> None:
    out = io.StringIO()
    metrics = (Metrics(0, 0.0, 0.0, float("nan")), Metrics(500, 0.7, 0.9, 0.8))
    jobs = {"train": "projects/1/locations/local/customJobs/7"}
    result = RunResult("shapes-1", "gs://b/runs/shapes-1", "gs://b/saved_model", Path("logs"), jobs, metrics)
    show_result(Console(file=out, width=120), result)
    text = out.getvalue()
    for wanted in ("AP@0.50", "0.900", "customJobs/7", "gs://b/runs/shapes-1", "gs://b/saved_model", "logs"):
        assert wanted in text
