"""Starts a node in the order of the real program, and turns fatal errors into its exit codes."""

from __future__ import annotations

import os
import signal
import socket
import sys

from soakd.simnode import config as configuration
from soakd.simnode.api import Api
from soakd.simnode.auth import Auth
from soakd.simnode.clock import now
from soakd.simnode.config import Config
from soakd.simnode.contacts import Contacts, load
from soakd.simnode.control import Control
from soakd.simnode.downloads import Downloads
from soakd.simnode.fatal import FatalError, os_error
from soakd.simnode.fate import Dice
from soakd.simnode.httpd import Handle, Listener
from soakd.simnode.identity import Identity, load_identity, load_token, take_lock
from soakd.simnode.kad import Kad
from soakd.simnode.keywords import Keywords
from soakd.simnode.loop import Loop
from soakd.simnode.network import Network, Parts
from soakd.simnode.node import Node
from soakd.simnode.settings import Settings
from soakd.simnode.sources import Sources
from soakd.simnode.status import Counters
from soakd.simnode.tracing import DEBUG, INFO, LogFile, Shown, Tracing, level_of

BANNER = "*** SIMULATION: soakd's simulated node, not rust-mule: no I2P, no Kad network ***"
_UI_PATIENCE_S = 30.0


def main() -> int:
    """Run a node in the current folder until it ends; arguments are ignored.

    Returns:
        0 after a graceful stop, 1 after `Error: …` on stderr.

    Raises:
        SystemExit: the node was told to end with some other code.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        # Before the service loop a SIGINT kills at once, and Python is not to make it a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        config = configuration.load()
        tracing = open_tracing(config)
        tracing.raw(BANNER)
        tracing.info("", "rust-mule booting", simulation=True)
        tracing.info("app", "starting app", event="app_start")
        os.makedirs(config.get("general", "data_dir"), exist_ok=True)
        # The lock lives as long as this descriptor: to the end of the process.
        take_lock(config, tracing)
        loop = Loop()
        control = Control(config, loop, tracing)
        control.begin()
        start(config, loop, tracing, control)
        return loop.run()
    except FatalError as error:
        sys.stderr.write(f"Error: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"Error: App(Io({os_error(error)}))\n")
        return 1


def open_tracing(config: Config) -> Tracing:
    """Open stdout and the file log as the configuration and the environment say."""
    general = config.values["general"]
    file = None
    if general["log_to_file"]:
        file = LogFile(config.data_path("logs"), general["log_file_name"])
    environment = os.environ
    return Tracing(
        stdout_level=level_of(environment.get("RUST_LOG"), general["log_level"], INFO),
        file_level=level_of(
            environment.get("RUST_MULE_LOG_FILE"), general["log_file_level"], DEBUG
        ),
        colour=not environment.get("NO_COLOR"),
        file=file,
    )


def start(config: Config, loop: Loop, tracing: Tracing, control: Control) -> None:
    """Take the steps up to the SAM session; the rest follows when that is made.

    Raises:
        FatalError: an identity file is damaged, or no UDP port is free.
    """
    identity = load_identity(config, tracing)
    parts = Parts(config, loop, tracing, Counters(), Dice(config.sim.seed), identity)
    if config.sim.session_secs:
        loop.later(config.sim.session_secs, lambda: _session_made(parts, identity, control))
    else:
        _session_made(parts, identity, control)


def _session_made(parts: Parts, identity: Identity, control: Control) -> None:
    config, tracing = parts.config, parts.tracing
    contacts = Contacts(identity.kad_id)
    network = Network(parts, contacts)
    tracing.info("app", "SAM DATAGRAM session ready", simulation=True, udp_port=network.port)
    downloads = Downloads(config, tracing)
    auth = Auth(load_token(config, tracing))
    sources = Sources(parts, contacts, network)
    keywords = Keywords(parts, network)
    kad = Kad(parts, contacts, network, sources, keywords)
    node = Node(parts, auth, Settings(config), downloads, contacts, sources, keywords, kad)
    control.attach(node)
    _serve(parts, control, Api(node).handle)
    for contact in load(config, tracing):
        if contact.version:
            contact.seen_at = now()
            contacts.add(contact)
    kad.bootstrap()


def _serve(parts: Parts, control: Control, handle: Handle) -> None:
    """Listen on both loopback addresses, each for itself; without either the node lives on."""
    config, tracing = parts.config, parts.tracing
    port = config.get("api", "port")
    url = f"http://localhost:{port}/index.html"
    tracing.info("app", f"rust-mule UI available at: {url}", event="ui_available")
    if config.get("general", "auto_open_ui"):
        parts.loop.later(
            _UI_PATIENCE_S,
            lambda: tracing.warn("app", "UI auto-open skipped", error="UI did not become ready"),
        )
    last: OSError | None = None
    bound = 0
    for family, host, shown in (
        (socket.AF_INET6, "::1", f"[::1]:{port}"),
        (socket.AF_INET, "127.0.0.1", f"127.0.0.1:{port}"),
    ):
        try:
            sock = control.listen((host, port), family)
        except OSError as error:
            last = error
            tracing.warn(
                "api",
                "api loopback listener unavailable",
                addr=Shown(shown),
                error=Shown(f"{error.strerror} (os error {error.errno})"),
            )
            continue
        bound += 1
        tracing.info("api", "api server listening", addr=Shown(shown))
        control.listeners.append(Listener(parts.loop, sock, control.guard(handle)))
    if not bound and last is not None:
        text = f"failed to bind API listener: {last.strerror} (os error {last.errno})"
        tracing.error("app", "api server stopped", error=Shown(text))
