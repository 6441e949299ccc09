"""Starting gcpod costs next to nothing: what a fresh interpreter has loaded afterwards."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from gcpod.localcloud.server import LocalCloud
from gcpod.session import Session
from gcpod.settings import resolve
from gcpod.spec import Spec
from gcpod.storage.objects import Objects

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
    assert (done.returncode, done.stderr) == (0, "")
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


SMALL_OBJECTS = """
from pathlib import Path
from gcpod.session import Session
from gcpod.settings import resolve
from gcpod.spec import Spec
from gcpod.storage.objects import Objects
from gcpod.uris import GcsUri
objects = Objects(Session(resolve(Spec(), endpoint={url!r}, environ={{}}, home=Path())))
claim = GcsUri("bucket", "claim")
assert not objects.ensure_bucket("bucket")
objects.write(claim, b"mine")
found = objects.read(claim)
assert found.content == b"mine" and objects.exists(claim) and len(objects.list(GcsUri("bucket"))) == 1
assert objects.write_if(claim, b"other", 0) is None and objects.delete_if(claim, found.generation)
"""


def test_what_a_submission_asks_of_a_bucket_loads_none_of_googles_clients(tmp_path: Path) -> None:
    with LocalCloud(tmp_path / "cloud") as cloud:
        session = Session(resolve(Spec(), endpoint=cloud.url, environ={}, home=tmp_path))
        with closing(Objects(session)) as objects:
            assert objects.ensure_bucket("bucket")
        session.storage.close()
        loaded = set(loaded_after(SMALL_OBJECTS.format(url=cloud.url))) - set(loaded_after("pass"))
    assert {name.split(".")[0] for name in loaded} <= {"google_crc32c", "yaml"}


def test_the_check_sees_a_heavy_import() -> None:
    assert "yaml" in loaded_after("import gcpod.specfile")
