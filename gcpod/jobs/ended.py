"""Why a job ended as it did: the end of its log, held against what is known of failures."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta, timezone

from gcpod.errors import GcpodError
from gcpod.jobs.cursor import NS, moment_of
from gcpod.jobs.diagnose import diagnose
from gcpod.jobs.logs import LogReader
from gcpod.session import Session
from gcpod.status import Finding, JobInfo, JobState

TAIL_LINES, TAIL_S = 2000, 1800
"""The end of a log that a diagnosis looks at, in lines, and in seconds before the job's end."""


def findings_of(session: Session, info: JobInfo) -> list[Finding]:
    """What a job's error and the end of its log show about why it failed, the most telling first.

    Empty while it goes on, and where it succeeded. Where the log cannot be read, the error alone is looked at.

    Args:
        session: of the job's project and region (Jobs.session_of).
        info: what the service says of the job.
    """
    if not failed(info):
        return []
    return diagnose(info.error, end_of_log(session, info), info.name)


def failed(info: JobInfo) -> bool:
    """Whether a job ended otherwise than well."""
    return info.state.terminal and info.state is not JobState.SUCCEEDED


def end_of_log(session: Session, info: JobInfo) -> Iterable[str]:
    """The last lines that a job wrote, as far as they can be read."""
    tail = deque[str](maxlen=TAIL_LINES)
    end = moment_of(info.end_time)
    since = None if end is None else datetime.fromtimestamp(end // NS, timezone.utc) - timedelta(seconds=TAIL_S)
    with suppress(GcpodError):
        for lines in LogReader(session, info.id, since=since).pages(wide=True):
            tail.extend(line.text for line in lines)
    return tail
