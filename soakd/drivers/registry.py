"""Which drivers there are: rust-mule's, and those that installed packages bring along.

A package names its driver as an entry point of the group `soakd.drivers`; it is looked for only
when a plan names a driver that is not built in. Plans are checked here by soakctl and by soakd: the
core cannot know what is installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from soakd.core.errors import UserError
from soakd.core.plan import NodePlan, Plan
from soakd.drivers import rust_mule
from soakd.drivers.driver import Api, Driver, Files, Http, NodeConfig, OnToken, ReadToken, Words

GROUP = "soakd.drivers"
MAX_NAMED = 20
_PARTS = (
    "name", "files", "words", "scenarios", "environment", "config_problem", "edit_config",
    "session_name", "api",
)  # fmt: skip
_BUILT_IN: Mapping[str, Driver] = {rust_mule.DRIVER.name: rust_mule.DRIVER}


def get(name: str) -> Driver:
    """Gives a driver by the name that plans know it by.

    Raises:
        UserError: `bad_plan`; there is none, it cannot be loaded, or it is no driver.
    """
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    # Costs more than all of `soakctl status`: only for those who need it.
    from importlib.metadata import entry_points  # noqa: PLC0415

    points = entry_points(group=GROUP)
    for point in points:
        if point.name == name:
            try:
                found = point.load()
            except (Exception, SystemExit) as error:
                # A program that was named by mistake ends itself; it must not end soakd.
                text = f"{point.value} cannot be loaded: {type(error).__name__}: {error}"
                raise _refusal(f"driver: cannot use {name!r}: {text}") from error
            missing = [part for part in _PARTS if not hasattr(found, part)]
            if missing:
                text = f"{point.value} is no driver: it has no {', '.join(missing)}"
                raise _refusal(f"driver: cannot use {name!r}: {text}")
            return cast("Driver", found)
    known = ", ".join(sorted({*_BUILT_IN, *points.names})[:MAX_NAMED])
    raise _refusal(
        f"driver: cannot use {name!r}: there is no such driver; the known ones are: {known}"
    )


def check(plan: Plan) -> Driver:
    """Gives the driver of a plan that is to be submitted.

    Raises:
        UserError: `bad_plan`; it is not known, or does not have the scenario's calls.
    """
    driver = get(plan.driver)
    if plan.scenario not in driver.scenarios:
        has = ", ".join(sorted(driver.scenarios))
        raise _refusal(
            f"scenario: cannot play {plan.scenario} with driver {plan.driver}: it has {has}"
        )
    return driver


def of_stored(plan: Plan) -> Driver:
    """Gives the driver of a plan that was accepted, perhaps by a soakd that knew more drivers.

    Never raises: one run must not keep the others from being taken up. Of a driver that is gone a
    stand-in is given, which refuses whatever needs to know the program; so the run fails.
    """
    try:
        return get(plan.driver)
    except UserError as error:
        return _Missing(plan.driver, error)


def _refusal(problem: str) -> UserError:
    return UserError("bad_plan", f"cannot use the plan: {problem}", {"problems": [problem]})


class _Missing:
    """In place of a driver that is not installed any more; satisfies `Driver`."""

    words = Words()
    scenarios: frozenset[str] = frozenset()
    environment: Mapping[str, str] = {}

    def __init__(self, name: str, why: UserError) -> None:
        self.name = name
        self._why = why

    @property
    def files(self) -> Files:
        raise self._refusal()

    def config_problem(self, _data: bytes) -> str | None:
        raise self._refusal()

    def edit_config(self, _text: str | None, _plan: Plan, _node: NodePlan, _run: str) -> NodeConfig:
        raise self._refusal()

    def session_name(self, _plan: Plan, _node: str, _run: str) -> str | None:
        return None

    def api(self, _http: Http, _read_token: ReadToken, _on_token: OnToken) -> Api:
        raise self._refusal()

    def _refusal(self) -> UserError:
        problem = cast("list[str]", self._why.details["problems"])[0]
        return UserError("refused", f"cannot go on: {problem}; install it again")
