"""Starting gcpod costs next to nothing: what a fresh interpreter has loaded afterwards."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "tensorflow", "numpy", "pandas", "PIL", "yaml", "google", "googleapiclient", "google_crc32c", "requests", "rich",
    "starlette", "uvicorn", "jsonschema", "httplib2", "cryptography",
)
LOADED = f"""
import sys
print(*sorted(m for m in sys.modules if m.split(".")[0] in {HEAVY!r}))
"""


def loaded_after(code: str) -> list[str]:
    program = f"{code}\n{LOADED}"
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()


HELP = """
import sys
from gcpod.cli.main import main
sys.argv = ["gcpod", *{arguments!r}]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
"""


@pytest.mark.parametrize("code", [
    "import gcpod",
    "import gcpod; gcpod.GcpodError; gcpod.__version__",
    HELP.format(arguments=["--help"]),
    HELP.format(arguments=["--version"]),
    HELP.format(arguments=["jobs", "--help"]),
    HELP.format(arguments=["run", "--help"]),
])
def test_starting_loads_nothing_heavy(code: str) -> None:
    # A package's own .pth file may load its namespace at every start of Python: that is not gcpod's doing.
    assert set(loaded_after(code)) == set(loaded_after("pass"))


def test_the_check_sees_a_heavy_import() -> None:
    assert "yaml" in loaded_after("import gcpod.specfile")
