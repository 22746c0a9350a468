"""What several tests of core need: a valid plan, as data and as a value, steady properties."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

from soakd.core.plan import Plan, parse_plan

# The same examples on every run and machine, however slow, and no folder left behind.
steady = settings(derandomize=True, deadline=None, database=None, max_examples=50)


def plan_data(**changes: Any) -> dict[str, Any]:
    """Return the smallest valid plan as plain data, with some fields changed."""
    nodes = [
        {"name": "a", "source": "/a", "host": "127.0.0.1", "port": 17835, "roles": ["publisher"]},
        {"name": "b", "source": "/b", "host": "::1", "port": 17836, "roles": ["searcher"]},
    ]
    return {"nodes": nodes, "run_tag": "tag", **changes}


def make_plan(**changes: Any) -> Plan:
    """Return the smallest valid plan, with some fields changed."""
    return parse_plan(plan_data(**changes))
