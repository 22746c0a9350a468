"""Large blocks of memory go back to the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

# What stays between the blocks keeps the heap from shrinking at its end.
PROGRAM = """
import sys
from soakd.edge import heap

def rss_kb():
    text = open("/proc/self/status").read()
    return int(text.partition("VmRSS:")[2].split()[0])

if sys.argv[1] == "set":
    assert heap.return_large_blocks()
first = b"x" * 1_000_000
del first
before_kb = rss_kb()
blocks, pins = [], []
for _ in range(16):
    blocks.append(b"x" * 900_000)
    pins.append(bytes(2000))
del blocks
print(rss_kb() - before_kb)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "least_kb", "most_kb"), [("set", -500, 1000), ("not", 5000, 20000)]
)
def test_large_blocks_are_handed_back(how: str, least_kb: int, most_kb: int) -> None:
    """Sixteen blocks of 900 kB beside small things that stay; without the setting they stay too."""
    command = [sys.executable, "-c", PROGRAM, how]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert least_kb <= int(done.stdout) <= most_kb
