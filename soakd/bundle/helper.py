"""The helper of `collect`: runs as the submitter, packs what the spec on its stdin names.

Started by soakd/edge/packer.py as a zip in a memfd. Exit status 0 and a complete tar on stdout,
or 1 and one line on stderr that says why. It trusts nothing but its spec.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from contextlib import suppress

from soakd.bundle.pack import Packer
from soakd.bundle.search import SecretLeftError
from soakd.bundle.spec import MAX_SPEC_BYTES, decode_spec
from soakd.bundle.tar_stream import OutputError

_PR_SET_NO_NEW_PRIVS = 38
_NICE = 10
# A folder with millions of names is its owner's problem, not the host's.
_MAX_MEMORY_BYTES = 1 << 30


def main() -> int:
    """Pack one bundle; return the exit status."""
    _restrict()
    try:
        spec, records = decode_spec(sys.stdin.buffer.read(MAX_SPEC_BYTES + 1))
    except (ValueError, TypeError, KeyError) as error:
        return _fail(f"cannot read the spec: {error}")
    try:
        Packer(spec, sys.stdout.fileno()).run(records)
    except OutputError as error:
        return _fail(f"cannot write the bundle: {error}")
    except SecretLeftError as error:
        return _fail(f"cannot let the bundle go: {error}; this is a fault of soakd")
    except (OSError, MemoryError) as error:
        return _fail(f"cannot pack the bundle: {str(error) or type(error).__name__}")
    return 0


def _restrict() -> None:
    """Give up what packing does not need, before anything of a user's is looked at."""
    ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard in {resource.RLIM_INFINITY, -1} or hard > _MAX_MEMORY_BYTES:
        resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY_BYTES, hard))
    with suppress(OSError):
        os.nice(_NICE)


def _fail(text: str) -> int:
    sys.stderr.write(text + "\n")
    return 1
