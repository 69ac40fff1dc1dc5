"""Stop signals: the first two are counted, the third ends the process at once with the code of its signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from relay_agent.agent.signals import STOP, Signals


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Whatever a test installs, pytest's own handlers are back afterwards."""
    before = {number: signal.getsignal(number) for number in STOP}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_nothing_is_counted_before_the_first_signal() -> None:
    signals = Signals()
    signals.install()
    assert signals.count == 0


@pytest.mark.parametrize("both", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM), (signal.SIGINT, signal.SIGINT)])
def test_the_first_two_signals_are_counted_whichever_they_are(both: tuple[signal.Signals, signal.Signals]) -> None:
    signals = Signals()
    signals.install()
    for place, number in enumerate(both, 1):
        signal.raise_signal(number)
        assert signals.count == place


@pytest.mark.parametrize("number", STOP)
def test_a_signal_ends_a_wait_at_once(number: signal.Signals) -> None:
    signals = Signals()
    signals.install()
    sender = threading.Timer(0.05, os.kill, (os.getpid(), number))
    sender.start()
    assert signals.wait(30.0)
    sender.join(10.0)
    assert signals.wait(30.0), "one that has come ends every later wait"


def test_a_wait_without_a_signal_ends_by_its_time() -> None:
    assert not Signals().wait(0.0)
    assert not Signals().wait(-1.0)


@pytest.mark.parametrize("number", STOP)
def test_the_third_signal_ends_the_process_without_cleaning_up(number: signal.Signals) -> None:
    program = f"""
import signal
from relay_agent.agent.signals import Signals
Signals().install()
try:
    for _ in range(9):
        print("sent", flush=True)
        signal.raise_signal({int(number)})
finally:
    print("cleaned up", flush=True)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout.split("\n")) == (128 + number, ["sent"] * 3 + [""])
