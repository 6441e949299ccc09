from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpod.errors import PackageError
from gcpod.packaging.metadata import Metadata, read_metadata
from tests.data.making import outcome

PYPROJECT, SETUP, CFG = "pyproject.toml", "setup.py", "setup.cfg"
NAMED = '[project]\nname = "My.Trainer"\n'
DYNAMIC = NAMED + "dynamic = ['version']\n"


def read(files: dict[str, str]) -> Metadata:
    return read_metadata(files.get, "here")


@pytest.mark.parametrize(("files", "expected"), [
    ({PYPROJECT: NAMED + 'version = "1.0"'}, Metadata("my_trainer", "1.0")),
    ({PYPROJECT: NAMED + 'version = "v1.0-RC1"\ndependencies = ["numpy >=1.2 ; python_version<\'4\'", "a"]'},
     Metadata("my_trainer", "1.0rc1", ('numpy>=1.2; python_version < "4"', "a"))),
    ({PYPROJECT: '[tool.poetry]\nname = "t"\nversion = "2"\npackages = [{include = "t", from = "lib"}]'},
     Metadata("t", "2", where="lib")),
    ({PYPROJECT: '[tool.poetry]\nname = "t"\nversion = "2"\n[tool.poetry.dependencies]\nnumpy = "^1"'},
     Metadata("t", "2", computed_requires=True)),
    ({CFG: "[metadata]\nname = t\nversion = 3\n"
      "[options]\npackage_dir =\n    = src\ninstall_requires =\n    a>1\n    b\n"},
     Metadata("t", "3", ("a>1", "b"), where="src")),
    ({CFG: "[metadata]\nname = t\nversion = file: VERSION\n", "VERSION": "4.5\n"}, Metadata("t", "4.5")),
    ({CFG: "[metadata]\nname = t\nversion = attr: t.about.V\n", "t/about.py": "V: str = '5'"}, Metadata("t", "5")),
    ({SETUP: "from setuptools import *\n"
      "setup(name='t', version='6', install_requires=['x'], package_dir={'': 'code'})"},
     Metadata("t", "6", ("x",), where="code")),
    ({SETUP: "import setuptools as s\nNAME = 't'\nV = '7'\nREQ = ('x', 'y')\n"
      "s.setup(name=NAME, version=V, install_requires=REQ)"},
     Metadata("t", "7", ("x", "y"))),
    ({SETUP: "from setuptools import setup\nsetup(name='t', version='8', install_requires=open('r').read().split())"},
     Metadata("t", "8", computed_requires=True)),
    ({PYPROJECT: "[build-system]\nrequires = []", SETUP: "setup(name='t', version='9')"}, Metadata("t", "9")),
    ({PYPROJECT: DYNAMIC + "[tool.setuptools.dynamic]\nversion = {attr = 'my_trainer.__version__'}",
      "src/my_trainer/__init__.py": "import os\n__version__ = '10'\n"}, Metadata("my_trainer", "10")),
    ({PYPROJECT: NAMED + "dynamic = ['version', 'dependencies']\n[tool.setuptools.dynamic]\nversion = {file = ['V']}\n"
      "dependencies = {file = ['r.txt']}", "V": " 11 ", "r.txt": "# all\na==1  # why\n\nb\n"},
     Metadata("my_trainer", "11", ("a==1", "b"))),
    ({PYPROJECT: NAMED + "version = '1'\ndynamic = ['dependencies']"},
     Metadata("my_trainer", "1", computed_requires=True)),
    ({PYPROJECT: NAMED + "version = '1'\ndynamic = ['dependencies']\n[tool.setuptools.dynamic]\n"
      "dependencies = {file = 'r.txt'}", "r.txt": "-r other.txt\na\n"},
     Metadata("my_trainer", "1", ("a",), computed_requires=True)),
    ({PYPROJECT: DYNAMIC + "[tool.hatch.version]\npath = 'src/a.py'", "src/a.py": "VERSION = '12'"},
     Metadata("my_trainer", "12")),
    ({PYPROJECT: DYNAMIC + "[build-system]\nbuild-backend = 'flit_core.buildapi'",
      "my_trainer.py": "__version__ = '13'"}, Metadata("my_trainer", "13")),
    ({PYPROJECT: NAMED + "version = '1'\n[tool.setuptools.packages.find]\nwhere = ['./python/']"},
     Metadata("my_trainer", "1", where="python")),
    ({PYPROJECT: NAMED + "version = '1'\n[tool.setuptools.package-dir]\n'' = '.'"},
     Metadata("my_trainer", "1", where="")),
])
def test_what_projects_write_down_is_read(files: dict[str, str], expected: Metadata) -> None:
    assert read(files) == expected


@pytest.mark.parametrize(("files", "found"), [
    ({}, "it has no pyproject.toml, setup.cfg or setup.py that names a project"),
    ({PYPROJECT: "[tool.ruff]\nx = 1"}, "it has no pyproject.toml"),
    ({SETUP: "print('no setup here')"}, "it has no pyproject.toml"),
    ({PYPROJECT: DYNAMIC + "[tool.setuptools_scm]"}, "its version is not written down but computed"),
    ({SETUP: "setup(name='t', version=get_version())"}, "its version is not written down but computed"),
    ({SETUP: "setup(name=open('n').read(), version='1')"}, "its name is not written down but computed"),
    ({SETUP: "setup(**everything)"}, "it has no pyproject.toml"),
    ({CFG: "[metadata]\nname = t\nversion = attr: t.V\n", "t.py": "V = compute()"}, "its version is not written down"),
    ({CFG: "[metadata]\nname = t\nversion = attr: V\n"}, "its version is not written down"),
    ({CFG: "[metadata]\nname = t\nversion = file: absent\n"}, "its version is not written down"),
    ({PYPROJECT: NAMED + 'version = "one"'}, "its version 'one' is none of PEP 440"),
    ({PYPROJECT: f'[project]\nname = "t"\nversion = "{"1" * 5000}"'}, "is none of PEP 440"),
    ({PYPROJECT: '[project]\nname = "a/b"\nversion = "1"'}, "its name 'a/b' is none of PEP 503"),
    ({PYPROJECT: '[project]\nname = "é"\nversion = "1"'}, "its name 'é' is none of PEP 503"),
    ({PYPROJECT: "[project"}, "pyproject.toml"),
    ({PYPROJECT: "project = 1"}, "project is no table"),
    ({CFG: "name = t"}, "setup.cfg"),
    ({SETUP: "def ("}, "it is no Python"),
    ({SETUP: "(" * 100_000}, "it is no Python"),
    ({PYPROJECT: NAMED + "version = '1'\n[build-system]\nbuild-backend = 'maturin'"}, "modules to compile"),
    ({PYPROJECT: NAMED + "version = '1'\n[build-system]\nbuild-backend = 'scikit_build_core.build'"},
     "modules to compile"),
    ({SETUP: "setup(name='t', version='1', ext_modules=cythonize('x.pyx'))"}, "modules to compile"),
])
def test_what_cannot_be_read_is_an_error_of_one_line(files: dict[str, str], found: str) -> None:
    with pytest.raises(PackageError) as caught:
        read(files)
    assert str(caught.value).startswith("E104: packing here")
    assert found in str(caught.value)
    assert "\n" not in str(caught.value)


_TOML = st.text() | st.lists(st.sampled_from([
    "[project]", "name = 't'", "name = 1", "version = '1'", "version = []", "dependencies = 'x'", "dependencies = [1]",
    "dynamic = 3", "dynamic = ['version', 'dependencies']", "[tool]", "[tool.poetry]", "tool = 1", "[build-system]",
    "[tool.setuptools.dynamic]", "version = {attr = 'a.b'}", "version = {file = 7}", "version = {file = [[]]}",
    "[tool.setuptools.packages.find]", "where = [1]", "where = ['..']", "[tool.hatch.version]", "path = 'x'",
    "packages = ['x', {from = 1}]", "build-backend = 5", "build-backend = 'flit'", "[tool.setuptools]",
    "package-dir = 'x'",
])).map("\n".join)


@given(_TOML, st.text("setup(name=',v1)\n"), st.text("[metadata]\nname=version:attr.file %(") | st.text())
def test_any_text_is_metadata_or_an_error(toml: str, setup: str, cfg: str) -> None:
    assert outcome(lambda: read({PYPROJECT: toml, SETUP: setup, CFG: cfg})) in ("", "E104")
