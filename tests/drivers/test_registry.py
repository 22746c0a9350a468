"""Which drivers there are, and what becomes of plans whose driver is not there."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from soakd.core import plan_keys
from soakd.core.errors import SoakError, UserError
from soakd.core.plan import NodePlan, Plan
from soakd.drivers import registry, rust_mule
from soakd.drivers.driver import Driver, Http

A = NodePlan("a", "/dist/mule-a", "127.0.0.1", 20001, ("publisher",))


class Other(rust_mule.RustMule):
    name = "other"
    scenarios = frozenset({"dance"})


OTHER = Other()


def plan(**changes: Any) -> Plan:
    given: dict[str, Any] = {"nodes": (A,), "duration_s": 60.0, "rounds": None, "run_tag": "tag"}
    return Plan(**(given | changes))


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two packages bring drivers; one of them is broken."""
    made = importlib.metadata.EntryPoint
    found = importlib.metadata.EntryPoints(
        [
            made("other", f"{__name__}:OTHER", registry.GROUP),
            made("quits", "soak_driver_that_quits:DRIVER", registry.GROUP),
            made("empty", f"{__name__}:A", registry.GROUP),
            made("broken", "no_such_module_of_ours:DRIVER", registry.GROUP),
        ]
    )
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **by: found.select(**by))
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Other.__module__])


def test_rust_mule_is_built_in_and_plays_every_scenario() -> None:
    """It is the default of a plan; scenarios are made for it."""
    assert registry.check(plan()) is rust_mule.DRIVER
    assert rust_mule.DRIVER.scenarios == set(plan_keys.KEYS["scenario"].choices)


def test_an_installed_driver_is_found_by_its_entry_point(installed: None) -> None:
    """Nothing else is needed."""
    driver: Driver = registry.get("other")
    assert driver is OTHER


def test_an_unknown_driver_is_refused_with_the_known_ones(installed: None) -> None:
    """Both ends say so before anything is done."""
    with pytest.raises(UserError) as caught:
        registry.check(plan(driver="gone"))
    assert caught.value.code == "bad_plan"
    problem = (
        "driver: cannot use 'gone': there is no such driver;"
        " the known ones are: broken, empty, other, quits, rust_mule"
    )
    assert caught.value.details["problems"] == [problem]


def test_a_driver_that_cannot_be_loaded_says_why(installed: None) -> None:
    """The package's mistake, in the words of Python."""
    with pytest.raises(UserError, match="cannot be loaded: ModuleNotFoundError: No module named"):
        registry.get("broken")


def test_a_driver_that_ends_its_program_does_not_end_ours(
    installed: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever may submit a plan could end soakd otherwise."""
    (tmp_path / "soak_driver_that_quits.py").write_text("raise SystemExit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="cannot be loaded: SystemExit: 3"):
        registry.get("quits")
    assert registry.of_stored(plan(driver="quits")).name == "quits"


def test_what_is_no_driver_is_refused_with_what_it_lacks(installed: None) -> None:
    """At once, and not with an AttributeError in the middle of a run."""
    with pytest.raises(UserError, match="is no driver: it has no files, words, scenarios"):
        registry.get("empty")


def test_a_scenario_that_the_driver_cannot_play_is_refused(installed: None) -> None:
    """Not in the first round."""
    with pytest.raises(UserError, match="cannot play source_probe with driver other: it has dance"):
        registry.check(plan(driver="other"))


def test_a_stored_plan_whose_driver_is_gone_harms_nobody_else() -> None:
    """It has a stand-in that is asked without harm, and refuses whatever needs the program."""
    assert registry.of_stored(plan()) is rust_mule.DRIVER
    driver = registry.of_stored(plan(driver="gone"))
    assert (driver.name, driver.words.marks, driver.session_name(plan(), "a", "r1")) == (
        "gone",
        (),
        None,
    )
    assert (driver.scenarios, driver.environment) == (frozenset(), {})
    http: Any = Http
    for ask in (
        lambda: driver.files,
        lambda: driver.config_problem(b""),
        lambda: driver.edit_config(None, plan(), A, "r1"),
        lambda: driver.api(http, http, http),
    ):
        with pytest.raises(SoakError, match="cannot go on: driver: cannot use 'gone'.*install it"):
            ask()


@pytest.mark.slow
def test_asking_for_names_loads_no_heavy_module() -> None:
    """`soakctl start` asks for the names of program and configuration, and for nothing else."""
    code = (
        "import sys\n"
        "from soakd.drivers import registry\n"
        "assert registry.get('rust_mule').files.program == 'rust-mule'\n"
        "assert registry.get('rust_mule').config_problem(b'a = 1') is None\n"
        "print(' '.join(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"trio", "httpx", "structlog", "psutil", "rich", "tomlkit", "importlib.metadata"}
    assert heavy & set(done.stdout.split()) == set()
