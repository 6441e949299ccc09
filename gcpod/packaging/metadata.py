"""What a Python project says about itself, read without running any of it.

pyproject.toml (https://packaging.python.org/en/latest/specifications/pyproject-toml/), setup.cfg and setup.py
(https://setuptools.pypa.io/en/latest/userguide/declarative_config.html) are data here; a setup.py is parsed, and what
it computes is not known.
"""

from __future__ import annotations

import ast
import configparser
import importlib
import posixpath
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gcpod.errors import PackageError
from gcpod.packaging.versions import file_name, normal_requirement, normal_version

_COMPILERS = ("maturin", "scikit_build_core", "skbuild", "mesonpy", "setuptools_rust", "py_build_cmake", "enscons")
"""Build backends whose purpose is a compiler."""
_FIX = "write it as plain text into [project] of pyproject.toml"
Read = Callable[[str], str | None]
"""The text of one of the project's files by its path; None where there is none."""


@dataclass(frozen=True)
class Metadata:
    """A project's own words.

    Attributes:
        name: as in the name of an sdist, such as my_trainer.
        version: normal form of PEP 440.
        requires: requirements in the form of PEP 508.
        computed_requires: whether there are others, which only running its setup would tell.
        where: the folder its packages lie in, "" for the project's own; None where it does not say.
    """

    name: str
    version: str
    requires: tuple[str, ...] = ()
    computed_requires: bool = False
    where: str | None = None


def read_metadata(read: Read, project: object) -> Metadata:
    """The metadata of a project.

    Args:
        read: gives the text of its files.
        project: for messages.

    Raises:
        PackageError: it is no project, its files are damaged, it needs a compiler, or its name or version is computed.
    """
    toml = _toml(read("pyproject.toml"), project)
    cfg = _cfg(read("setup.cfg"), project)
    call = _setup_call(read("setup.py"), project)
    tables = [toml.get("project", {}), _table(toml, "tool", "poetry"), cfg, call]
    if not any(tables):
        raise PackageError("packing", project, "it has no pyproject.toml, setup.cfg or setup.py that names a project",
                           "give the folder of a Python project")
    _refuse_compilers(toml, call, project)
    where = _where(toml, cfg, call)
    name = next((table["name"] for table in tables if isinstance(table.get("name"), str)), None)
    version = _version(tables, toml, read, name, where)
    if name is None or version is None:
        lacking = "name" if name is None else "version"
        raise PackageError("packing", project, f"its {lacking} is not written down but computed by its setup", _FIX)
    known, good = normal_version(version), file_name(name)
    if known is None or good is None:
        found = f"its version {version!r} is none of PEP 440" if good else f"its name {name!r} is none of PEP 503"
        raise PackageError("packing", project, found, "correct it in pyproject.toml, setup.cfg or setup.py")
    requires, computed = _requires(tables, toml, read)
    return Metadata(good, known, requires, computed, where)


def _toml(text: str | None, project: object) -> dict[str, Any]:
    # The standard library has it since 3.11, under another name.
    parser: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        found: dict[str, Any] = parser.loads(text or "")
    except (ValueError, RecursionError) as e:
        raise PackageError("packing", f"{project}/pyproject.toml", str(e), "correct the TOML there") from e
    if not isinstance(found.get("project", {}), dict):
        raise PackageError("packing", f"{project}/pyproject.toml", "project is no table", "write it as [project]")
    return found


def _table(toml: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """A nested table; empty where there is none."""
    at: Any = toml
    for name in names:
        at = at.get(name) if isinstance(at, dict) else None
    return at if isinstance(at, dict) else {}


def _cfg(text: str | None, project: object) -> dict[str, Any]:
    """setup.cfg in the shape of the keywords of setup()."""
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text or "")
    except (configparser.Error, ValueError) as e:
        raise PackageError("packing", f"{project}/setup.cfg", str(e), "correct it there") from e
    sections = {name: dict(parser.items(name)) for name in parser.sections()}
    metadata, options = sections.get("metadata", {}), sections.get("options", {})
    found: dict[str, Any] = {key: metadata[key] for key in ("name", "version") if key in metadata}
    if "install_requires" in options:
        found["install_requires"] = options["install_requires"].splitlines()
    if "package_dir" in options:
        pairs = (line.partition("=") for line in options["package_dir"].splitlines() if "=" in line)
        found["package_dir"] = {key.strip(): value.strip() for key, _, value in pairs}
    return found


def _setup_call(text: str | None, project: object) -> dict[str, Any]:
    """The keywords of the call of setup() whose values are constants, or names of some; others are None."""
    try:
        tree = ast.parse(text or "")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
        raise PackageError("packing", f"{project}/setup.py", "it is no Python", "correct it there") from e
    known = _constants(tree)
    for node in ast.walk(tree):
        named = node.func if isinstance(node, ast.Call) else None
        if isinstance(node, ast.Call) and getattr(named, "attr", getattr(named, "id", "")) == "setup":
            return {k.arg: _value(k.value, known) for k in node.keywords if k.arg}
    return {}


def _constants(tree: ast.Module) -> dict[str, Any]:
    """Names that a module gives a constant to, at its top."""
    found: dict[str, Any] = {}
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        if value is not None:
            found |= {target.id: _value(value, found) for target in targets if isinstance(target, ast.Name)}
    return found


def _value(node: ast.expr, known: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Name):
        return known.get(node.id)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None


def _refuse_compilers(toml: Mapping[str, Any], call: Mapping[str, Any], project: object) -> None:
    backend = str(_table(toml, "build-system").get("build-backend", ""))
    compiled = backend.split(".")[0] in _COMPILERS or _table(toml, "tool", "setuptools").get("ext-modules")
    if compiled or any(key in call for key in ("ext_modules", "cffi_modules", "rust_extensions")):
        raise PackageError("packing", project, "it has modules to compile, which a job's machine may be unable to",
                           "install it into an image of your own (runtime.image)")


def _where(toml: Mapping[str, Any], cfg: Mapping[str, Any], call: Mapping[str, Any]) -> str | None:
    """The folder that packages are said to lie in."""
    listed = _table(toml, "tool", "setuptools", "packages", "find").get("where")
    first = listed[0] if isinstance(listed, list) and listed else None
    poetry = _table(toml, "tool", "poetry").get("packages")
    taken = [one.get("from") for one in poetry if isinstance(one, dict)] if isinstance(poetry, list) else []
    folders = (_table(toml, "tool", "setuptools", "package-dir"), cfg.get("package_dir"), call.get("package_dir"))
    said = [first, *taken, *(folder.get("") for folder in folders if isinstance(folder, dict))]
    found = next((one for one in said if isinstance(one, str)), None)
    return None if found is None else posixpath.normpath(found.replace("\\", "/")).strip("/").removeprefix(".")


def _version(
    tables: list[dict[str, Any]], toml: Mapping[str, Any], read: Read, name: str | None, where: str | None,
) -> str | None:
    """The version as written, or as the file says that the project points to."""
    roots = [f"{where}/"] if where else ["", "src/"]
    for text in (table.get("version") for table in tables):
        if isinstance(text, str) and text.startswith("attr:"):
            return _attribute(text.removeprefix("attr:").strip(), roots, read)
        if isinstance(text, str) and text.startswith("file:"):
            return _line(read(text.removeprefix("file:").strip()))
        if isinstance(text, str):
            return text
    told = _table(toml, "tool", "setuptools", "dynamic", "version")
    if isinstance(told.get("attr"), str):
        return _attribute(told["attr"], roots, read)
    if told.get("file"):
        files = told["file"] if isinstance(told["file"], list) else [told["file"]]
        return _line(read(str(files[0])))
    for tool in ("hatch", "pdm"):
        path = _table(toml, "tool", tool, "version").get("path")
        if isinstance(path, str):
            return _first(_assigned(read(path)), ("__version__", "VERSION"))
    backend = str(_table(toml, "build-system").get("build-backend", ""))
    if backend.startswith("flit") and name and (module := file_name(name)):
        return _attribute(f"{module}.__version__", roots, read)
    return None


def _line(text: str | None) -> str | None:
    return text.strip() if text else None


def _attribute(path: str, roots: list[str], read: Read) -> str | None:
    """The constant that a dotted name stands for, in the module or package that holds it."""
    *parts, attribute = path.split(".")
    for root in roots:
        for end in (".py", "/__init__.py"):
            text = read(f"{root}{'/'.join(parts)}{end}") if parts else None
            if text is not None:
                return _first(_assigned(text), (attribute,))
    return None


def _assigned(text: str | None) -> dict[str, Any]:
    try:
        return _constants(ast.parse(text or ""))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}


def _first(found: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((found[name] for name in names if isinstance(found.get(name), str)), None)


def _requires(tables: list[dict[str, Any]], toml: Mapping[str, Any], read: Read) -> tuple[tuple[str, ...], bool]:
    """Requirements as written, and whether there are others."""
    project, poetry, cfg, call = tables
    given: Any = project.get("dependencies")
    computed = False
    if given is None and "dependencies" in project.get("dynamic", ()):
        given = _requires_file(_table(toml, "tool", "setuptools", "dynamic", "dependencies"), read)
        computed = given is None
    for table in (cfg, call):
        if given is None and "install_requires" in table:
            given = table["install_requires"]
            computed = given is None
    given = [given] if isinstance(given, str) else given if isinstance(given, list | tuple) else []
    lines = [re.sub(r"(^|\s)#.*", "", str(one)).strip() for one in given]
    read_well = [normal_requirement(line) for line in lines if line]
    computed = computed or None in read_well or bool(poetry.get("dependencies"))
    return tuple(one for one in read_well if one), computed


def _requires_file(told: Mapping[str, Any], read: Read) -> list[str] | None:
    files = told.get("file", [])
    texts = [read(str(name)) for name in (files if isinstance(files, list) else [files])]
    return [line for text in texts if text for line in text.splitlines()] if any(texts) else None
