"""The files that make a node itself: lock, keys, Kad id, UDP secret, API token.

Formats, modes and replacement as the real program's; what is damaged is fatal in its words.
"""

from __future__ import annotations

import base64
import errno
import fcntl
import os
from typing import NamedTuple, TypeGuard

from soakd.simnode.config import Config
from soakd.simnode.fatal import FatalError, os_error, quoted
from soakd.simnode.tracing import Tracing

LOCK = "rust-mule.lock"
TOKEN = "api.token"  # noqa: S105 - the name of the file
DESTINATION_BYTES = 387
_HEX = frozenset("0123456789abcdefABCDEF")


class Identity(NamedTuple):
    """Who a node is: Kad id, and its I2P address in I2P's base64."""

    kad_id: str
    destination: str


def i2p_base64(raw: bytes) -> str:
    """Encode as I2P does: `-` and `~` for `+` and `/`."""
    return base64.b64encode(raw, b"-~").decode()


def i2p_bytes(text: str) -> bytes:
    """Decode I2P's base64.

    Raises:
        ValueError: not base64.
    """
    return base64.b64decode(text, b"-~", validate=True)


def is_destination(text: object) -> TypeGuard[str]:
    """Say whether this is an I2P address as every node spells its own."""
    try:
        return isinstance(text, str) and len(i2p_bytes(text)) == DESTINATION_BYTES
    except ValueError:
        return False


def is_id(text: object) -> TypeGuard[str]:
    """Say whether this is a Kad id: exactly 32 hex digits, either case."""
    return isinstance(text, str) and len(text) == 32 and _HEX.issuperset(text)


def write_atomic(path: str, data: bytes, *, mode: int | None = None) -> None:
    """Write through `<stem>.tmp` and a rename.

    Raises:
        OSError: the folder cannot be written.
    """
    temporary = os.path.splitext(path)[0] + ".tmp"
    with open(temporary, "wb") as file:
        file.write(data)
    os.replace(temporary, path)
    if mode is not None:
        os.chmod(path, mode)


def take_lock(config: Config, tracing: Tracing) -> int:
    """Take the instance lock for the life of the process, and return its descriptor.

    Raises:
        FatalError: another process holds it.
    """
    path = config.data_path(LOCK)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise FatalError(
                f"App(SingleInstance(AlreadyRunning {{ path: {quoted(path)} }}))"
            ) from error
        raise FatalError(f"App(SingleInstance(Lock {{ source: {os_error(error)} }}))") from error
    tracing.info(
        "single_instance", "instance lock acquired", event="instance_lock_acquired", path=path
    )
    return fd


def load_identity(config: Config, tracing: Tracing) -> Identity:
    """Read or make Kad id, UDP secret and SAM keys.

    Raises:
        FatalError: one of the files is damaged.
    """
    kad_id = _kad_id(config.data_path(config.get("kad", "preferences_kad_path")))
    tracing.info("app", "Loaded Kademlia identity", event="kad_identity_ready", kad_id=kad_id)
    _udp_secret(config.data_path("kad_udp_key_secret.dat"))
    tracing.info("app", "Loaded/generated Kad UDP key secret")
    tracing.info("app", "testing i2p + SAM connectivity", simulation=True)
    destination = _sam_keys(config.data_path("sam.keys"))
    tracing.info("app", "SAM keys ready")
    return Identity(kad_id, destination)


def group_reversed(raw: bytes) -> bytes:
    """Turn a Kad id between its hex order and the order of the files."""
    return b"".join(raw[at : at + 4][::-1] for at in range(0, 16, 4))


def _kad_id(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raw = os.urandom(16)
        write_atomic(path, bytes(2) + group_reversed(raw) + bytes(1))
        return raw.hex()
    if len(data) < 18:
        raise FatalError(f"App(Kad(InvalidPreferences {{ len: {len(data)} }}))")
    raw = group_reversed(data[2:18])
    # The real program replaces a zero id in memory at each start and does not save it.
    return (raw if any(raw) else os.urandom(16)).hex()


def _udp_secret(path: str) -> None:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        secret = int.from_bytes(os.urandom(4), "little") or 1
        write_atomic(path, secret.to_bytes(4, "little"))
        return
    if len(data) != 4:
        raise FatalError(
            f"App(UdpKey(WrongSize {{ path: {quoted(path)}, expected: 4, got: {len(data)} }}))"
        )


def _sam_keys(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        # The real address begins with four bytes that act as its hash: never all zero.
        public = i2p_base64(b"\x51" + os.urandom(DESTINATION_BYTES - 4) + bytes(3))
        text = f"PUB={public}\nPRIV={public}{i2p_base64(os.urandom(276))}\n"
        write_atomic(path, text.encode(), mode=0o600)
        return public
    keys: dict[str, str] = {}
    for line in lines:
        key, _, value = line.strip().partition("=")
        if not key or key.startswith("#"):
            continue
        if key not in ("PUB", "PRIV"):
            raise FatalError(f"App(SamKeys(UnknownKey {{ key: {quoted(key)} }}))")
        keys[key] = value
    missing = [key for key in ("PUB", "PRIV") if not keys.get(key)]
    if missing:
        raise FatalError(f"App(SamKeys(MissingKey {{ key: {quoted(missing[0])} }}))")
    return _checked_destination(keys["PUB"])


def _checked_destination(public: str) -> str:
    try:
        length = len(i2p_bytes(public))
    except ValueError as error:
        raise FatalError(f"App(SamKeys(InvalidBase64 {{ {quoted(str(error))} }}))") from error
    if length != DESTINATION_BYTES:
        raise FatalError(
            f'App(InvalidState("decoded SAM PUB key has wrong length: {length}, expected 387"))'
        )
    return public


def load_token(config: Config, tracing: Tracing) -> str:
    """Read the API token, or make one; an invalid file is replaced with a WARN.

    Raises:
        FatalError: the file cannot be written.
    """
    path = config.data_path(TOKEN)
    try:
        with open(path, "rb") as file:
            token = file.read().strip().decode("latin-1")
    except FileNotFoundError:
        token = ""
    else:
        if len(token) == 64 and _HEX.issuperset(token):
            tracing.info("api::token", "api token ready", path=path)
            return token
        tracing.warn("api::token", "token file was invalid; generated a new one", path=path)
    try:
        token = new_token(path)
    except OSError as error:
        raise FatalError(f"App(Api(Token({os_error(error)})))") from error
    tracing.info("api::token", "api token ready", path=path)
    return token


def new_token(path: str) -> str:
    """Write a new token into the file, and return it.

    Raises:
        OSError: the file cannot be written.
    """
    token = os.urandom(32).hex()
    write_atomic(path, token.encode(), mode=0o600)
    return token
