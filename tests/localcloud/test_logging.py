"""Log entries over the wire, and the reader that follows them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gcpod.jobs.logs import NEAR_S, LogReader
from gcpod.localcloud.cloud import JobCloud
from gcpod.localcloud.jobdb import JobRecord
from tests.jobs import session_of
from tests.localcloud.conftest import Answer, Raw

TIME = "2026-05-01T10:00:{:09.6f}Z"


class Written:
    """A cloud whose jobs are written straight into its database, at times of our own."""

    def __init__(self, cloud: JobCloud) -> None:
        assert cloud.database is not None
        self.cloud, self.database = cloud, cloud.database
        self.database.clock = lambda: TIME.format(self.second)
        self.second = 0.0
        for number in ("1", "2"):
            self.database.add(JobRecord(number, "p", {}, "SUCCEEDED", created=TIME.format(0)))

    def log(self, second: float, *lines: str, job: str = "1", severity: str = "INFO") -> None:
        self.second = second
        self.database.log(job, severity, "workerpool0-0", lines)

    def reply(self, **body: Any) -> Answer:
        content = json.dumps({"resourceNames": ["projects/p"], **body}).encode()
        return Raw(f"127.0.0.1:{self.cloud.port}")("POST", "/v2/entries:list", content)

    def texts(self, **body: Any) -> list[str]:
        return [one["jsonPayload"]["message"] for one in self.reply(**body).json.get("entries", [])]


@pytest.fixture
def written(quick_cloud: JobCloud) -> Written:
    return Written(quick_cloud)


def test_orders_and_pages(written: Written) -> None:
    for number in range(5):
        written.log(number, f"line {number}")
    assert written.texts() == [f"line {number}" for number in range(5)]
    assert written.texts(orderBy="timestamp desc") == [f"line {number}" for number in reversed(range(5))]
    pages, token = list[list[str]](), ""
    while not pages or token:
        reply = written.reply(pageSize=2, pageToken=token).json
        pages.append([one["jsonPayload"]["message"] for one in reply["entries"]])
        token = reply.get("nextPageToken", "")
    assert pages == [["line 0", "line 1"], ["line 2", "line 3"], ["line 4"]]


def test_filters(written: Written) -> None:
    written.log(1, "one")
    written.log(2, "two", job="2", severity="ERROR")
    assert written.texts(filter='resource.type="ml_job" AND resource.labels.job_id="2"') == ["two"]
    assert written.texts(filter='resource.labels.job_id="1" resource.labels.job_id="1"') == ["one"]
    assert written.texts(filter='NOT resource.labels.job_id="1"') == ["two"]
    assert written.texts(filter='resource.labels.job_id="1" OR\nresource.labels.job_id="2"') == ["one", "two"]
    assert written.texts(filter='resource.labels.job_id="1" AND resource.labels.job_id="2"') == []
    assert written.texts(filter="severity>=WARNING") == ["two"]
    assert written.texts(filter='timestamp>="2026-05-01T10:00:02Z"') == ["two"]
    assert written.texts(filter='timestamp<"2026-05-01T12:00:02+02:00"') == ["one"]


@pytest.mark.parametrize("body", [
    {"filter": "("}, {"orderBy": "severity"}, {"pageSize": -1}, {"pageToken": "x"}, {"pageToken": "²"},
    {"resourceNames": []},
    {"filter": "a=1 " * 6000}, {"colour": 1}, {"pageSize": "many"},
])
def test_bad_requests(written: Written, body: dict[str, Any]) -> None:
    reply = written.reply(**body)
    assert (reply.status, reply.json["error"]["status"]) == (400, "INVALID_ARGUMENT")


def test_other_projects_see_nothing(written: Written) -> None:
    written.log(1, "one")
    assert written.reply(resourceNames=["projects/other"]).json == {}


def test_a_reader_gets_every_line_once(written: Written) -> None:
    reader = LogReader(session_of(written.cloud.url), "1")
    assert reader.poll() == []
    written.log(20, "a", "b")
    written.log(20, "other", job="2")
    assert [one.text for one in reader.poll()] == ["a", "b"]
    assert reader.poll() == []
    written.log(20, "same time, later")
    written.log(20 - NEAR_S + 1, "earlier time, later")
    assert sorted(one.text for one in reader.poll()) == ["earlier time, later", "same time, later"]
    written.log(21, "next", severity="ERROR")
    [line] = reader.poll()
    assert (line.text, line.severity, line.task, line.time) == ("next", "ERROR", "workerpool0-0", TIME.format(21))


def test_times_are_compared_as_such(written: Written) -> None:
    written.database.clock = lambda: "2026-05-01T10:00:00.5Z"
    written.database.log("1", "INFO", "t", ["second"])
    written.database.clock = lambda: "2026-05-01T10:00:00Z"
    written.database.log("1", "INFO", "t", ["first"])
    written.database.clock = lambda: "2026-05-01T10:00:00.500000001Z"
    written.database.log("1", "INFO", "t", ["third"])
    assert written.texts() == ["first", "second", "third"]
    assert written.texts(orderBy="timestamp desc") == ["third", "second", "first"]


def test_a_reader_turns_pages(written: Written) -> None:
    lines = [f"line {number}" for number in range(2300)]
    written.log(1, *lines)
    reader = LogReader(session_of(written.cloud.url), "1")
    assert [one.text for one in reader.poll()] == lines
    assert reader.poll() == []
