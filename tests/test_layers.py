"""The import layers of docs/architecture.md, held against every module's own import statements."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import gcpod

ROOT = Path(gcpod.__file__).parent
LAUNCHER = "gcpod.runtimes.launcher"

LAYERS: tuple[frozenset[str], ...] = tuple(frozenset(row.split()) for row in (
    "errors cache",
    "uris status textproto wire records checksums headers runtimes",
    "spec specfile layout",
    "settings",
    "session",
    "data models pipeline packaging",
    "beam storage",
    "jobs results connection",
    "following naming",
    "prepare",
    "uploads copying sweeps",
    "checks outcome demo inputs",
    "runjobs",
    "runner",
    "sweeping",
    "api",
    "cli",
))
"""Bottom first. A part imports the rows below it and itself; within a row only what TOGETHER names."""

TOGETHER = {"specfile": {"spec"}}
LOCAL_CLOUD = {"localcloud", "errors", "cache", "uris", "runtimes"}
STARTS_IT = {"connection", "cli"}
"""Who may start a local cloud; everything else meets it over HTTP."""
TOP = {"", "__main__"}
"""gcpod/__init__.py, which names the public calls, and __main__.py, which starts the command line."""


def part_of(module: str) -> str:
    """The part of the house that a dotted module belongs to; "" for gcpod itself."""
    return [*module.split("."), ""][1]


def modules() -> dict[str, ast.Module]:
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(("gcpod", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


MODULES = modules()
CLIENT = {name: tree for name, tree in MODULES.items() if not name.startswith(LAUNCHER)}


def imports(tree: ast.Module) -> Iterator[str]:
    """Every module or name imported anywhere in a module: at its top, in functions, under TYPE_CHECKING."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where a name comes from"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str))


def parts_imported(tree: ast.Module) -> set[str]:
    own = {name for name in imports(tree) if name.split(".")[0] == "gcpod"}
    return {"" if name == "gcpod.__version__" else part_of(name) for name in own}


def allowed(part: str) -> set[str]:
    """What a part may import."""
    if part == "localcloud":
        return set(LOCAL_CLOUD)
    row = next(number for number, layer in enumerate(LAYERS) if part in layer)
    below = {name for layer in LAYERS[:row] for name in layer}
    return below | {part} | TOGETHER.get(part, set()) | ({"localcloud", ""} if part in STARTS_IT else set())


def broken(module: str, tree: ast.Module) -> set[str]:
    part = part_of(module)
    if part in TOP:
        return set() if part == "" else parts_imported(tree) - {"cli"}
    return parts_imported(tree) - allowed(part)


def test_every_part_has_its_place() -> None:
    placed = {name for layer in LAYERS for name in layer} | {"localcloud"} | TOP
    assert {part_of(module) for module in MODULES} - placed == set(), "put the new part into LAYERS"
    assert sum(len(layer) for layer in LAYERS) == len({name for layer in LAYERS for name in layer})


@pytest.mark.parametrize("module", sorted(CLIENT))
def test_imports_go_downwards_only(module: str) -> None:
    assert broken(module, CLIENT[module]) == set()


@pytest.mark.parametrize(("module", "text", "expected"), [
    ("gcpod.uris", "import gcpod.session", {"session"}),
    ("gcpod.data.voc", "def f():\n    from gcpod.pipeline.edit import edit", {"pipeline"}),
    ("gcpod.spec", "if TYPE_CHECKING:\n    from gcpod import session", {"session"}),
    ("gcpod.localcloud.store", "from gcpod.spec import Spec", {"spec"}),
    ("gcpod.jobs.watch", "import importlib\nimportlib.import_module('gcpod.localcloud.cloud')", {"localcloud"}),
    ("gcpod.storage.plan", "from gcpod.storage.objects import x\nfrom gcpod.uris import y\nimport yaml", set()),
    ("gcpod.results.x", "from gcpod.jobs.service import Jobs", {"jobs"}),
])
def test_the_rule_sees_each_form_of_import(module: str, text: str, expected: set[str]) -> None:
    assert broken(module, ast.parse(text)) == expected


def importers(*prefixes: str) -> set[str]:
    """Modules of the client that import something below one of the dotted prefixes."""
    return {
        module for module, tree in CLIENT.items()
        if any(f"{name}.".startswith(f"{prefix}.") for name in imports(tree) for prefix in prefixes)
    }


def test_the_client_never_imports_the_trainers_libraries() -> None:
    assert importers("tensorflow", "object_detection", "tf_slim", "numpy") == set()


def test_only_the_session_makes_google_clients() -> None:
    harmless = ("google.api_core.exceptions.", "google.auth.exceptions.", "google.cloud.storage.exceptions.",
                "googleapiclient.errors.", "google.cloud.storage.retry.", "google.protobuf.")
    makers = {
        module: [name for name in imports(tree)
                 if name.startswith(("google.", "googleapiclient", "google_auth", "httplib2", "vertexai"))
                 and not name.startswith(harmless)]
        for module, tree in CLIENT.items()
    }
    assert [module for module, names in makers.items() if names] == ["gcpod.session"]


def test_the_launcher_knows_nothing_of_gcpod() -> None:
    launcher = {module: tree for module, tree in MODULES.items() if module.startswith(LAUNCHER)}
    assert launcher
    assert [m for m, tree in launcher.items() if any(name.split(".")[0] == "gcpod" for name in imports(tree))] == []


def writes_to_the_terminal(tree: ast.Module) -> bool:
    calls = (ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call))
    names = ("print", "sys.stdout.write", "sys.stderr.write", "click.echo", "click.secho", "Console", "rich.print")
    return any(call in names for call in calls)


def test_only_the_command_line_prints() -> None:
    printing = {module for module, tree in CLIENT.items() if writes_to_the_terminal(tree)}
    assert printing
    assert {part_of(module) for module in printing} == {"cli"}
