"""The rust-mule driver's ear: what the lines that a node prints mean (contract §§3.3, 8).

Pure. On stderr stand panics and the one line of a failed start; on stdout stands the log.
"""

from __future__ import annotations

import re

# Contract §3.3: a failed start prints one stderr line in debug notation; these prefixes are all
# that may be relied on.
FAILURES: tuple[tuple[str, str], ...] = (
    (
        "Error: App(SingleInstance(AlreadyRunning",
        "another rust-mule already runs on this data dir and holds its lock",
    ),
    ("Error: LoadConfig(ParseToml", "config.toml is not valid TOML, or a value has the wrong type"),
    ("Error: LoadConfig(Read", "config.toml cannot be read"),
    ("Error: InvalidConfig(", "a value in config.toml is refused by the node"),
    (
        'Error: App(Sam(Io { op: "bind UDP socket for SAM forwarding"',
        "the UDP port sam.forward_port is taken",
    ),
    (
        'Error: App(Sam(Io { op: "connect',
        "the SAM bridge cannot be reached: does the I2P router run, with SAM at sam.host:sam.port?",
    ),
    (
        "Error: App(Sam(Timeout",
        "the SAM bridge does not answer: the I2P router is still starting, or overloaded",
    ),
    ("Error: App(Sam(Closed", "the SAM bridge closed the connection"),
    ("Error: App(Bootstrap(Sam(Closed", "the SAM bridge closed the connection during bootstrap"),
    ("Error: App(Sam(ReplyError", "the SAM bridge refused the session"),
    (
        'Error: App(InvalidState("decoded SAM PUB key has wrong length',
        "the bridge makes destinations of another size than 387 bytes; delete sam.keys first",
    ),
    ("Error: App(SamKeys(", "sam.keys is damaged"),
    ("Error: App(Kad(", "preferencesKad.dat is damaged"),
    ("Error: App(UdpKey(", "kad_udp_key_secret.dat has the wrong size"),
    ("Error: App(Nodes(Read", "the contact file cannot be read"),
    ("Error: App(Nodes(InvalidFormat", "the contact file is damaged or of another version"),
    (
        'Error: App(Bootstrap(InvalidState("no bootstrap nodes provided',
        "nodes.dat has no usable contact",
    ),
)
PANIC = re.compile(r"thread '.*'( \(\d+\))? panicked at")
MAX_SEARCHED_CHARS = 4096
FATAL = re.compile(r"^(Error: |thread 'main'( \(\d+\))? panicked at)")


def explain_failure(stderr_line: str) -> str | None:
    """Helping words for a node's `Error: …` line (contract §3.3); None for an unknown one."""
    for prefix, meaning in FAILURES:
        if stderr_line.startswith(prefix):
            return meaning
    return None


def is_panic(stderr_line: str) -> bool:
    """Whether a stderr line announces a panic (contract §8)."""
    # A line is the node's: the cheap look comes first, and no line is searched without end.
    head = stderr_line[:MAX_SEARCHED_CHARS]
    return " panicked at" in head and PANIC.search(head) is not None


def is_fatal(stderr_line: str) -> bool:
    """Whether a process ends after this stderr line: a fatal error, a panic of its main thread."""
    return FATAL.match(stderr_line) is not None


LOG_TROUBLE: tuple[tuple[str, str], ...] = (
    ("kad service lost SAM socket; recreating session and continuing", "sam_session_lost"),
    ("api server stopped", "api_dead"),
    ("api loopback listener unavailable", "api_one_family"),
    ("SAM session exists; destroying and retrying", "session_id_clash"),
    ("token file was invalid", "token_replaced"),
)
"""What a message of the node's log means, as the kind of an event."""
_LOG_LINE = re.compile(r"^\S+Z\s+(?:WARN|ERROR) \S+: ")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
MARKS = (*(text.encode() for text, _ in LOG_TROUBLE), b" panicked at", b"Error: ")
"""What to look for before a line is looked at."""


def log_trouble(line: str) -> str | None:
    """Kind of trouble that a line of the node's log tells of; None for any other line."""
    # Colours are off by our environment; a node may be asked for them all the same.
    plain = _COLOURS.sub("", line[:MAX_SEARCHED_CHARS])
    head = _LOG_LINE.match(plain)
    if head is None:
        return None
    message = plain[head.end() :]
    return next((kind for text, kind in LOG_TROUBLE if message.startswith(text)), None)
