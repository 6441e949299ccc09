from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from gcpod_launcher.__main__ import arguments, model_dir

from gcpod.runtimes import LAUNCHER


def test_the_modules_own_arguments_follow_the_dashes() -> None:
    options = arguments([
        "--package", "gs://b/a.tar.gz", "--package", "gs://b/b.whl", "--role", "train", "--marker", "gs://b/m",
        "--module", "x.y", "--", "--package", "mine", "--", "-v",
    ])
    assert options.package == ["gs://b/a.tar.gz", "gs://b/b.whl"]
    assert (options.role, options.marker, options.module) == ("train", "gs://b/m", "x.y")
    assert options.rest == ["--package", "mine", "--", "-v"]


def test_what_is_not_said_has_a_default() -> None:
    options = arguments(["--module", "x"])
    assert (options.package, options.role, options.marker, options.rest) == ([], "other", None, [])
    assert (options.poll_s, options.timeout_s, options.min_delta) == (10.0, 3600.0, 0.0)
    assert (options.best, options.metric, options.stop, options.stop_after, options.once) == (None,) * 5


def test_an_evaluation_is_told_what_is_best_and_when_to_stop() -> None:
    options = arguments([
        "--role", "eval", "--best", "gs://b/best", "--metric", "Loss/total_loss", "--min_delta", "1e-06",
        "--stop_after", "3", "--stop", "gs://b/stop", "--module", "x", "--",
    ])
    assert (options.best, options.metric, options.min_delta) == ("gs://b/best", "Loss/total_loss", 1e-6)
    assert (options.stop_after, options.stop) == (3, "gs://b/stop")


@pytest.mark.parametrize("argv", [
    [], ["--module"], ["--module", "x", "--role", "cook"], ["--modul", "x"], ["--module", "x", "--poll_s", "soon"],
    ["--module", "x", "--best", "b"], ["--module", "x", "--stop_after", "1", "--stop", "s"],
    ["--module", "x", "--stop_after", "1", "--best", "b", "--metric", "m"],
    ["--module", "x", "--stop_after", "0", "--best", "b", "--metric", "m", "--stop", "s"],
])
def test_other_arguments_are_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        arguments(argv)
    assert stop.value.code == 2
    assert "usage: gcpod_launcher" in capsys.readouterr().err


@pytest.mark.parametrize(("rest", "environment", "expected"), [
    (["--model_dir=gs://b/m", "-v"], "gs://b/aip/", "gs://b/m"), (["--model_dir", "gs://b/m"], "", "gs://b/m"),
    (["-v", "-model_dir=m=1"], "", "m=1"), (["--model_dir"], "", None), (["--model_dirs=x"], "", None),
    ([], "gs://b/aip/", "gs://b/aip/"), ([], "", None),
])
def test_a_training_begins_in_its_model_folder(
    monkeypatch: pytest.MonkeyPatch, rest: list[str], environment: str, expected: str | None,
) -> None:
    monkeypatch.setenv("AIP_MODEL_DIR", environment)
    assert model_dir(rest) == expected


RUN = """
import sys
from gcpod_launcher.__main__ import arguments, run
sys.exit(run(arguments(sys.argv[1:])))
"""


def run(folder: Path, body: str, *rest: str, module: str = "trainer") -> subprocess.CompletedProcess[str]:
    (folder / "trainer.py").write_text(body)
    return subprocess.run([sys.executable, "-c", RUN, "--module", module, "--", *rest], capture_output=True, text=True,
                          env={"PYTHONPATH": f"{LAUNCHER}:{folder}"}, timeout=60, check=False)


@pytest.mark.parametrize(("body", "code"), [
    ("pass", 0),
    ("raise SystemExit", 0),
    ("import sys; sys.exit(None)", 0),
    ("import sys; sys.exit(0)", 0),
    ("import sys; sys.exit(7)", 7),
    ("import sys; sys.exit(True)", 1),
    ("import sys; sys.exit('out of flags')", 1),
    ("import sys; sys.exit('')", 1),
])
def test_the_exit_code_is_the_modules(tmp_path: Path, body: str, code: int) -> None:
    done = run(tmp_path, body)
    assert done.returncode == code
    assert ("out of flags\n" in done.stderr) == ("flags" in body)
    assert "Traceback" not in done.stderr


def test_an_exception_is_shown_whole(tmp_path: Path) -> None:
    done = run(tmp_path, "def deeper():\n    raise ValueError('no such field')\ndeeper()\n")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert "in deeper" in done.stderr
    assert done.stderr.endswith("ValueError: no such field\n")


def test_a_module_that_is_not_there_is_an_exception(tmp_path: Path) -> None:
    done = run(tmp_path, "", module="nets.missing")
    assert done.returncode == 1
    assert "No module named 'nets'" in done.stderr


def test_the_module_sees_itself_as_the_program(tmp_path: Path) -> None:
    done = run(tmp_path, "import sys\nprint(__name__, sys.argv[1:], sys.modules['__main__'].__file__)\n", "--a=1",
               "b c")
    assert done.stdout == f"__main__ ['--a=1', 'b c'] {tmp_path / 'trainer.py'}\n", done.stderr
