"""The gates that stop a live run: looked at after each round and each sample of a process."""

from __future__ import annotations

from collections.abc import Callable

from soakd.core import gates, run_state
from soakd.core.plan import Plan
from soakd.observer import Observer


class AbortGates:
    """The abort gates of one run; tells its owner once that one of them is broken."""

    def __init__(
        self, plan: Plan, observer: Observer, tell_soon: Callable[[run_state.Event], None]
    ) -> None:
        """Looks at nothing before `look`.

        Args:
            plan: its gates; one that cannot be read is left to the end's verdict.
            observer: knows the facts.
            tell_soon: takes the event that ends the run.
        """
        self._gates = gates.readable(plan.gates)
        self._observer = observer
        self._tell_soon = tell_soon
        self._is_told = not any(gate.abort for gate in self._gates)

    def look(self) -> None:
        """Holds the gates against what is known now; cheap, and free without abort gates."""
        facts = None if self._is_told else self._observer.facts()
        result = None if facts is None else gates.broken(self._gates, facts)
        if result is None:
            return
        self._is_told = True
        self._observer.event("gate_broken", None, result.to_dict())
        self._tell_soon(run_state.Aborted(self._observer.cause("gate", result.text)))
