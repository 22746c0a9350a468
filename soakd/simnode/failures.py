"""The stderr lines of failed starts, each without its `Error: `."""

from __future__ import annotations

_REFUSED = 'Os { code: 111, kind: ConnectionRefused, message: "Connection refused" }'
_DENIED = 'Os { code: 13, kind: PermissionDenied, message: "Permission denied" }'
_IN_USE = 'Os { code: 98, kind: AddrInUse, message: "Address already in use" }'
_NOT_FOUND = 'Os { code: 2, kind: NotFound, message: "No such file or directory" }'

FAILURES: dict[str, str] = {
    "lock": 'App(SingleInstance(AlreadyRunning { path: "data/rust-mule.lock" }))',
    "config-toml": (
        'LoadConfig(ParseToml { path: "config.toml", source: Error { message: "expected `=`" } })'
    ),
    "config-read": f'LoadConfig(Read {{ path: "config.toml", source: {_DENIED} }})',
    "config-value": "InvalidConfig(InvalidSamPort(0))",
    "sam-unreachable": f'App(Sam(Io {{ op: "connect 127.0.0.1:7656", source: {_REFUSED} }}))',
    "sam-silent": 'App(Sam(Timeout { op: "read HELLO REPLY", timeout: 120s }))',
    "sam-closed": "App(Sam(Closed))",
    "sam-closed-bootstrap": "App(Bootstrap(Sam(Closed)))",
    "sam-refused": (
        'App(Sam(ReplyError { verb: "SESSION", kind: "STATUS", '
        'result: Some("DUPLICATED_DEST"), message: None }))'
    ),
    "sam-destination": (
        'App(InvalidState("decoded SAM PUB key has wrong length: 391, expected 387"))'
    ),
    "sam-udp-port": (
        f'App(Sam(Io {{ op: "bind UDP socket for SAM forwarding", source: {_IN_USE} }}))'
    ),
    "sam-keys": 'App(SamKeys(UnknownKey { key: "WHAT" }))',
    "kad-id": "App(Kad(InvalidPreferences { len: 5 }))",
    "udp-key": (
        'App(UdpKey(WrongSize { path: "data/kad_udp_key_secret.dat", expected: 4, got: 5 }))'
    ),
    "nodes-read": f'App(Nodes(Read {{ path: "data/nodes.dat", source: {_NOT_FOUND} }}))',
    "nodes-format": 'App(Nodes(InvalidFormat("unexpected end of file")))',
    "no-contacts": 'App(Bootstrap(InvalidState("no bootstrap nodes provided")))',
}
