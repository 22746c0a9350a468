"""The rust-mule driver: one object that says what soakd knows of the program.

Light on purpose: soakctl asks it for names. How `config.toml` is edited stands in
`rust_mule_config`, the API in `rust_mule_api` (both loaded when they are needed), what a node
prints in `rust_mule_words`, how its files are called in `rust_mule_names`. Facts come from the node
contract (rust-mule 0.1.0): §1.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping

from soakd.core.plan import NodePlan, Plan
from soakd.core.plan_keys import KEYS
from soakd.drivers import rust_mule_words
from soakd.drivers.driver import Api, Files, Http, NodeConfig, OnToken, ReadToken, Words
from soakd.drivers.rust_mule_names import (
    CONFIG,
    KEYS_FILE,
    LOCK_FILE,
    PROGRAM,
    TOKEN_FILE,
    session_name,
)


class RustMule:
    """Satisfies `Driver`."""

    name = "rust_mule"
    files = Files(
        program=PROGRAM,
        config=CONFIG,
        program_advice="build the program, or link to target/release/rust-mule",
        exclude=("data/logs",),
        locks=(LOCK_FILE,),
        secrets=(TOKEN_FILE, KEYS_FILE),
        keys=KEYS_FILE,
        token=TOKEN_FILE,
    )
    words = Words(
        marks=rust_mule_words.MARKS,
        is_panic=rust_mule_words.is_panic,
        is_fatal=rust_mule_words.is_fatal,
        explain_failure=rust_mule_words.explain_failure,
        log_trouble=rust_mule_words.log_trouble,
        # The process is the same, so its service loop began anew (contract §6).
        began_anew="sam_session_recreated",
        simulation_mark=b"SIMULATION",
    )
    # Scenarios are made for this program: it has the calls of all.
    scenarios = frozenset(KEYS["scenario"].choices)
    environment: Mapping[str, str] = {"RUST_BACKTRACE": "1"}

    def config_problem(self, data: bytes) -> str | None:
        """Only whether it is TOML: what the values mean is the node's business."""
        try:
            tomllib.loads(data.decode())
        except tomllib.TOMLDecodeError as error:
            return f"it is not TOML: {error}"
        except UnicodeDecodeError:
            return "it is not TOML: not UTF-8"
        return None

    def edit_config(self, text: str | None, plan: Plan, node: NodePlan, run: str) -> NodeConfig:
        """See `rust_mule_config.edit_config`."""
        from soakd.drivers import rust_mule_config  # noqa: PLC0415 - soakctl needs no tomlkit

        return rust_mule_config.edit_config(text, plan, node, run)

    def session_name(self, plan: Plan, node: str, run: str) -> str:
        """See `session_name`."""
        return session_name(plan, node, run)

    def api(self, http: Http, read_token: ReadToken, on_token: OnToken) -> Api:
        """See `rust_mule_api.RustMuleApi`."""
        from soakd.drivers.rust_mule_api import RustMuleApi  # noqa: PLC0415 - nor trio

        return RustMuleApi(http, read_token, on_token)


DRIVER = RustMule()
