"""Between ready nodes and the first round: the conditions of the plan's warm-up.

What the samples come to is decided by `core.warmup`. A self-test looks at all nodes before and
behind it, in time of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import trio

from soakd.core import rows, run_state, warmup
from soakd.core.errors import SoakError
from soakd.core.flows import SELFTEST
from soakd.core.plan import Plan
from soakd.edge.clock import boot_now, sleep_until_boot
from soakd.node import LiveNode
from soakd.observer import Observer
from soakd.scenarios.dht_selftest import Looks


class Warmer:
    """Waits until nodes are warm; `last_sample` says what was seen last."""

    def __init__(self, plan: Plan, nodes: Mapping[str, LiveNode], observer: Observer) -> None:
        """Asks nothing before `run`."""
        self.last_sample = ""
        self._plan = plan
        self._nodes = nodes
        self._observer = observer

    async def run(self, show: Callable[[], None]) -> run_state.Warmed | run_state.NotWarm:
        """Returns whether all conditions have held in as many samples as the plan wants.

        Args:
            show: called after each sample.
        """
        looks = None
        if self._plan.scenario == SELFTEST:
            looks = Looks(self._plan, self._nodes, self)
            await looks.before_warmup()
        timeout_s = self._plan.warmup_timeout_s
        with trio.move_on_after(timeout_s) as scope:
            await self._wait(show)
        if looks is not None:
            await looks.after_warmup()
        if not scope.cancelled_caught:
            return run_state.Warmed()
        seen = f"; the last sample: {self.last_sample}" if self.last_sample else ""
        text = f"the nodes were not warm after {timeout_s:g} s{seen}"
        self.event("not_warm", None, {"text": text})
        return run_state.NotWarm(text)

    async def _wait(self, show: Callable[[], None]) -> None:
        plan, began_s = self._plan, boot_now()
        state = warmup.begin(plan.warmup, plan.warmup_samples)
        due_s = began_s
        while not state.is_done:
            await sleep_until_boot(due_s)
            due_s = boot_now() + plan.warmup_check_s
            state = warmup.advance(state, await self._sample())
            self.last_sample = state.seen
            elapsed_s = boot_now() - began_s
            self._observer.marker(rows.warmup(elapsed_s, state.seen, state.stable, state.wanted))
            show()

    async def _sample(self) -> dict[str, Mapping[str, Any] | None]:
        """The status of every node, asked all at once; None of one that gave no usable answer."""
        sample: dict[str, Mapping[str, Any] | None] = dict.fromkeys(self._nodes)

        async def ask(name: str, node: LiveNode) -> None:
            try:
                sample[name] = json.loads(await node.status())
            except SoakError as error:
                self.event("step_failed", name, {"step": "warmup", "text": error.message})

        async with trio.open_nursery() as nursery:
            for name, node in self._nodes.items():
                nursery.start_soon(ask, name, node)
        return sample

    # -- what a self-test hears ----------------------------------------------------------------

    def answer(self, node: str, step: str, body: str) -> None:
        """Keeps a raw answer that came before the first round."""
        if self._observer.records is not None:
            self._observer.records.answer(node, step, None, body)

    def event(self, kind: str, node: str | None, data: Mapping[str, Any]) -> None:
        """Notes a look that failed."""
        self._observer.event(kind, node, data)
