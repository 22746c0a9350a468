from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from soakctl.interrupts import Interrupts

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Put the handlers of the test run back."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_inside_the_block_interrupts_it_at_once() -> None:
    """And which one it was is known afterwards."""
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt), interrupts.allowed():
            signal.raise_signal(signal.SIGTERM)
            pytest.fail("the block went on")
        assert interrupts.first == signal.SIGTERM


def test_a_signal_outside_waits_for_the_block() -> None:
    """What must not be interrupted is not."""
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGINT)
        done = "what must not be interrupted"
        with pytest.raises(KeyboardInterrupt), interrupts.allowed():
            pytest.fail("the block was entered")
    assert done


def test_a_second_signal_during_the_clean_up_is_only_noted() -> None:
    """An impatient Ctrl-C, Ctrl-C must not leak what the first one was about to remove."""
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt), interrupts.allowed():
            try:
                signal.raise_signal(signal.SIGINT)
            finally:
                signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGHUP)
        assert interrupts.first == signal.SIGINT
    signal.raise_signal(signal.SIGINT)


def test_the_handlers_are_put_back_and_nohup_is_respected() -> None:
    """SIGHUP that was ignored stays ignored."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGHUP)
        assert interrupts.first is None
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
