"""A log in a file: each line once over kills at any moment, one writer, nothing forged by what a line holds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpod.errors import SpecError
from gcpod.jobs.cursor import NS, Cursor, Mark
from gcpod.jobs.logfile import LogFile, printable
from gcpod.jobs.logs import LogLine
from tests.waiting import until

TIME = "2026-05-01T10:00:00Z"


def line(text: str, job: str = "1") -> LogLine:
    return LogLine(TIME, "INFO", "workerpool0-0", text, job)


def place(number: int, job: str = "1") -> Cursor:
    return Cursor({job: Mark(number * NS, 0, ((number * NS, "log", str(number)),))})


def texts(path: Path) -> list[str]:
    return [row.split(" ", 3)[3] for row in path.read_text().splitlines()]


def test_lines_and_their_place_are_there_again(tmp_path: Path) -> None:
    path = tmp_path / "job.log"
    with LogFile(path, "1") as file:
        assert file.cursor == Cursor()
        file.append([line("one"), line("of another", job="2")], Cursor({**place(1).marks, **place(1, "2").marks}))
        file.append([], place(2))
    with LogFile(path, "1") as file:
        assert file.cursor == place(2)
        file.append([line("two")], place(3))
    assert path.read_text() == f"{TIME} INFO workerpool0-0 one\n{TIME} INFO workerpool0-0 two\n"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["job.log", "job.log.cursor"]


def test_what_its_cursor_does_not_know_is_cut_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "job.log"
    with LogFile(path, "1") as file:
        file.append([line("one")], place(1))
    with path.open("ab") as f:
        f.write(b"2026-05-01T10:00:01Z INFO workerpool0-0 tw")
    with LogFile(path, "1") as file:
        assert (texts(path), file.cursor) == (["one"], place(1))


WRITER = """
import sys
from pathlib import Path
from gcpod.jobs.cursor import Cursor, Mark
from gcpod.jobs.logfile import LogFile
from gcpod.jobs.logs import LogLine

with LogFile(Path(sys.argv[1]), "1") as file:
    mark = file.cursor.marks.get("1", Mark())
    print("open", flush=True)
    for number in range(mark.newest, 10**9):
        lines = [LogLine("2026-05-01T10:00:00Z", "INFO", "t", f"{number}.{part}", "1") for part in range(3)]
        file.append(lines, Cursor({"1": Mark(number + 1)}))
"""


def test_each_line_is_there_once_however_often_the_writer_is_killed(tmp_path: Path) -> None:
    path, length = tmp_path / "job.log", 0
    for _ in range(4):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        until(lambda before=length: path.stat().st_size > before + 1000)  # type: ignore[misc]
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        length = path.stat().st_size
    with LogFile(path, "1") as file:
        count = file.cursor.marks["1"].newest
    assert texts(path) == [f"{number}.{part}" for number in range(count) for part in range(3)]


def test_only_one_process_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "job.log"
    with LogFile(path, "1") as file:
        with pytest.raises(SpecError, match=r"E101: writing the log to .*job\.log: another process is writing it"):
            LogFile(path, "1")
        file.append([line("one")], place(1))
    with LogFile(path, "1"):
        assert texts(path) == ["one"]


def test_a_file_that_is_none_of_ours_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "thesis.txt"
    path.write_text("years of work")
    with pytest.raises(SpecError, match="no log that gcpod wrote"):
        LogFile(path, "1")
    assert path.read_text() == "years of work"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_of_another_job_and_one_that_was_shortened_are_told(tmp_path: Path) -> None:
    path = tmp_path / "job.log"
    with LogFile(path, "1") as file:
        file.append([line("one")], place(1))
    with pytest.raises(SpecError, match="it is the log of job '1'"):
        LogFile(path, "2")
    path.write_text("short")
    with pytest.raises(SpecError, match=r"it is 5 bytes long and was \d+; delete it and job\.log\.cursor"):
        LogFile(path, "1")
    assert path.read_text() == "short"


@pytest.mark.parametrize("where", ["folder/job.log", ".", "/", "/dev/null"])
def test_a_place_that_cannot_be_written_is_told(tmp_path: Path, where: str) -> None:
    with pytest.raises(SpecError, match=r"E101: writing the log to"):
        LogFile(tmp_path / where, "1")


@given(st.one_of(
    st.binary(max_size=60),
    st.dictionaries(st.sampled_from(["version", "job", "bytes", "cursor"]), st.one_of(
        st.none(), st.integers(-1, 1), st.just("1"), st.just(Cursor().to_json()), st.lists(st.integers(), max_size=1),
    )).map(lambda data: json.dumps(data).encode()),
))
def test_a_damaged_cursor_is_told_or_good(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("log") / "job.log"
    path.with_name("job.log.cursor").write_bytes(content)
    try:
        file = LogFile(path, "1")
    except SpecError:
        return
    with file:
        assert (file.size, file.cursor) == (0, Cursor())


@given(st.text(max_size=80), st.text(max_size=20))
def test_no_line_forges_another_or_reaches_the_terminal(
    tmp_path_factory: pytest.TempPathFactory, text: str, task: str,
) -> None:
    path = tmp_path_factory.mktemp("log") / "job.log"
    with LogFile(path, "1") as file:
        file.append([LogLine(TIME, "INFO", task, text, "1"), line("next")], place(1))
    content = path.read_text(encoding="utf-8")
    assert len(content.splitlines()) == content.count("\n") == 2
    assert all(character.isprintable() or ord(character) > 127 or character in "\t\n" for character in content)
    assert content.splitlines()[0].split(" ", 3)[3] == printable(text)


@pytest.mark.parametrize(("text", "shown"), [
    ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"), ("a\nb\r\n", r"a\nb\r\n"), ("tab\tstays", "tab\tstays"),
    ("C:\\new über 猫", "C:\\new über 猫"),
    ("\x00\x7f\x9b\u202etxt.exe\u2028\ud800", r"\x00\x7f\x9b\u202etxt.exe\u2028\ud800"),
])
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown
