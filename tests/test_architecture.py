"""Who may import whom: the layers of the design, held by reading the import statements."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.unmeasured

ROOT = Path(__file__).resolve().parents[1]
OURS = ("soakd", "soakctl")


class Layer(NamedTuple):
    """Modules under one of `modules` may import these modules of ours and these of others."""

    modules: tuple[str, ...]
    ours: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


# The first layer that fits decides. Every layer may import its own modules, unless it says so
# in `CLOSED` below.
LAYERS = (
    Layer(("soakd.wire",), others=("msgpack",)),
    Layer(("soakd.core",)),
    Layer(("soakd.shim",)),
    Layer(("soakd.bundle",), ours=("soakd.core",), others=("isal",)),
    # rust_mule_words is pure: what a node's lines mean stands in one place, live and offline.
    Layer(
        ("soakd.triage",),
        ours=("soakd.core", "soakd.bundle", "soakd.drivers.rust_mule_words"),
        others=("orjson",),
    ),
    Layer(("soakd.simnode",)),
    # bundle.spec is to packer.py what shim.protocol is to shim_client.py.
    Layer(
        ("soakd.edge",),
        ours=("soakd.core", "soakd.shim.protocol", "soakd.bundle.spec", "soakd.edge.clock"),
        others=("trio", "httpx", "httpcore", "h11", "psutil", "jeepney"),
    ),
    Layer(("soakd.log",), others=("structlog",)),
    Layer(("soakd.drivers",), ours=("soakd.core", "soakd.edge", "soakd.log"), others=("tomlkit",)),
    Layer(("soakd.scenarios",), ours=("soakd.core", "soakd.edge", "soakd.log")),
    Layer(
        ("soakd.handlers",),
        ours=("soakd.wire", "soakd.core", "soakd.edge", "soakd.drivers.registry", "soakd.log"),
    ),
    Layer(
        ("soakd.server", "soakd.connection"),
        ours=("soakd.wire", "soakd.handlers", "soakd.core", "soakd.edge.peers", "soakd.log"),
    ),
    Layer(("soakd.daemon",), ours=("soakd",), others=("structlog",)),
    Layer(("soakd.command_line",), ours=("soakd",)),
    Layer(("soakd.__main__",), ours=("soakd.command_line",)),
    Layer(
        ("soakctl",),
        ours=(
            "soakd.wire",
            "soakd.core",
            "soakd.bundle",
            "soakd.simnode",
            "soakd.triage",
            "soakd.drivers.registry",
            "soakd.drivers.driver",
        ),
        others=("msgpack", "rich"),
    ),
)
# What is not named above stands between the drivers and the handlers: node, run, scheduler and
# the files they are split into.
MIDDLE = Layer(
    ("soakd",),
    ours=(
        "soakd.core",
        "soakd.edge",
        "soakd.drivers",
        "soakd.scenarios",
        "soakd.bundle.spec",
        "soakd.bundle.secret_files",
        "soakd.log",
    ),
)
WITH_TRIO = (
    "soakd.drivers", "soakd.scenarios", "soakd.handlers", "soakd.server", "soakd.connection",
    "soakd.daemon", "soakd.command_line",
)  # fmt: skip
# The one verb that needs these pays for them: nothing that every verb loads may import them.
SOAKCTL_LAZY = (
    "soakd.core", "soakd.bundle", "soakd.drivers", "soakd.simnode", "soakd.triage", "rich",
)  # fmt: skip
SOAKCTL_ALWAYS = ("soakctl.__main__", "soakctl.main", "soakctl.commands.status")
# One outside thing in two files: `store` and its migrations, `shim_*` and what it is made of.
EDGE_PARTS = {"soakd.edge.store": ("soakd.edge.schema",)}
# The core decides; it does not look, wait, write or roll dice.
CORE_BANNED = (
    "asyncio", "datetime", "logging", "os", "pathlib", "random", "select", "shutil",
    "socket", "sqlite3", "subprocess", "tempfile", "threading", "time",
)  # fmt: skip


class Import(NamedTuple):
    """One import statement: who, what, where, and whether it stands inside a function."""

    importer: str
    imported: str
    line: int
    lazy: bool

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def _under(module: str, *roots: str) -> bool:
    return any(module == root or module.startswith(root + ".") for root in roots)


def _module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports_of(path: Path) -> Iterator[Import]:
    importer = _module_name(path)
    tree = ast.parse(path.read_text(), str(path))
    lazy = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(importer, alias.name, node.lineno, id(node) in lazy)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = _resolve(node.module or "", alias.name)
                yield Import(importer, name, node.lineno, id(node) in lazy)


def _resolve(module: str, name: str) -> str:
    """Return `module.name` if that is one of our modules, else `module`."""
    full = f"{module}.{name}"
    path = ROOT / full.replace(".", "/")
    is_module = path.with_suffix(".py").exists() or path.is_dir()
    return full if _under(module, *OURS) and is_module else module


@cache
def _imports() -> list[Import]:
    """Every import of ours; not read before a test asks, for each worker loads this file."""
    return [
        found
        for package in OURS
        for path in sorted((ROOT / package).rglob("*.py"))
        for found in _imports_of(path)
    ]


def _layer_of(module: str) -> Layer:
    return next((layer for layer in LAYERS if _under(module, *layer.modules)), MIDDLE)


def _is_middle(module: str) -> bool:
    return _under(module, "soakd") and _layer_of(module) is MIDDLE


def _allowed(found: Import) -> bool:
    layer = _layer_of(found.importer)
    if found.imported == "soakd":  # its version
        return True
    if _under(found.imported, *layer.ours, *layer.others):
        return True
    if _under(found.imported, "trio"):
        return layer is MIDDLE or _under(found.importer, *WITH_TRIO)
    if layer is MIDDLE:
        return _is_middle(found.imported)
    if _under(found.importer, "soakd.edge"):
        return _is_edge_part(found)
    # The scheduler is the only thing between that handlers may know.
    if _under(found.importer, "soakd.handlers") and found.imported == "soakd.scheduler":
        return True
    return _under(found.imported, *layer.modules)


def _is_edge_part(found: Import) -> bool:
    """Say whether both files are about one outside thing (named there, or by a common word)."""
    word = found.importer.split(".")[2].split("_", maxsplit=1)[0]
    return _under(found.imported, *EDGE_PARTS.get(found.importer, ())) or (
        found.imported.startswith(f"soakd.edge.{word}_")
    )


def _is_stdlib(module: str) -> bool:
    return module.split(".", maxsplit=1)[0] in sys.stdlib_module_names


def test_layers_import_only_what_the_design_allows() -> None:
    """No layer reaches up, and no edge file reaches sideways."""
    wrong = [
        str(found) for found in _imports() if not _is_stdlib(found.imported) and not _allowed(found)
    ]
    assert wrong == []


def test_core_stays_pure() -> None:
    """The core imports nothing that looks at the world."""
    wrong = [
        str(found)
        for found in _imports()
        if _under(found.importer, "soakd.core") and _under(found.imported, *CORE_BANNED)
    ]
    assert wrong == []


def test_what_every_verb_of_soakctl_loads_is_light() -> None:
    """From `main` and `status`, no chain of top-level imports leads to a heavy package."""
    reached: set[str] = set()
    waiting = list(SOAKCTL_ALWAYS)
    while waiting:
        module = waiting.pop()
        reached.add(module)
        eager = {f.imported for f in _imports() if f.importer == module and not f.lazy}
        waiting.extend(eager - reached)
    assert {module for module in reached if _under(module, *SOAKCTL_LAZY)} == set()


def test_only_the_command_line_imports_the_daemon() -> None:
    """The daemon ties everything together; nothing else may lean on it."""
    importers = {found.importer for found in _imports() if _under(found.imported, "soakd.daemon")}
    outside = {name for name in importers if not _under(name, "soakd.daemon")}
    assert outside <= {"soakd.command_line"}


def test_shim_and_bundle_imports_stand_at_the_top() -> None:
    """They run from a zip that an upgrade must not change half-way: no late imports."""
    late = [
        str(found)
        for found in _imports()
        if _under(found.importer, "soakd.shim", "soakd.bundle")
        and found.lazy
        and not _under(found.imported, "isal")
    ]
    assert late == []


@pytest.mark.parametrize("package", ["soakd.shim", "soakd.bundle", "soakd.simnode"])
def test_programs_for_any_python_have_no_foreign_imports(package: str) -> None:
    """Shim, helper and simulated node run with -I -S: standard library and themselves."""
    wrong = [
        str(found)
        for found in _imports()
        if _under(found.importer, package)
        and not _is_stdlib(found.imported)
        and not _under(found.imported, package, "isal", "soakd")
    ]
    assert wrong == []


@pytest.mark.slow
def test_soakctl_status_loads_no_heavy_module() -> None:
    """Answering `status` needs a socket and MessagePack; everything else is start-up time."""
    heavy = {"trio", "httpx", "structlog", "psutil", "rich", "asyncio", "dataclasses", "inspect"}
    code = (
        "import sys\n"
        "from soakctl.main import main\n"
        "sys.argv = ['soakctl', '--socket', '/nonexistent/soakd.sock', 'status']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(' '.join(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert heavy & set(done.stdout.split()) == set()


@pytest.mark.slow
def test_soakd_loads_nothing_for_terminals() -> None:
    """Its log is JSON lines: rich and what rich needs are start-up time and memory."""
    code = "import sys, soakd.command_line; print(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "structlog" in loaded
    assert {"rich.console", "pygments"} & loaded == set()
