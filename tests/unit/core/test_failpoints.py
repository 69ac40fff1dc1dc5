"""Fault points: which text arms which one, and that the process dies or freezes there, at that count."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from relay_agent.core.failpoints import Point, arm, armed, reach


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    arm(None)


@pytest.mark.parametrize("text", [None, ""])
def test_without_a_text_nothing_is_armed(text: str | None) -> None:
    arm("sent")
    assert (arm(text), armed()) == (None, None)
    for point in Point:
        reach(point)


@pytest.mark.parametrize("point", Point)
def test_every_point_can_be_armed_by_its_name(point: Point) -> None:
    assert (arm(str(point)), armed()) == (point, point)
    assert arm(f"{point}:3") is point
    assert arm(f"{point}:stop") is point
    assert arm(f"{point}:3:stop") is point


@pytest.mark.parametrize("text", ["nowhere", "sent:0", "sent:-1", "sent:x", "sent:3:x", "sent:stop:3", "SENT"])
def test_a_text_that_names_no_point_or_no_count_is_refused_and_arms_nothing(text: str) -> None:
    with pytest.raises(ValueError):
        arm(text)
    assert armed() is None


def test_another_point_than_the_armed_one_does_not_count() -> None:
    arm("sent:2")
    reach(Point.SENT)
    for _ in range(3):
        reach(Point.ANSWERED)
    assert armed() is Point.SENT


def program(text: str) -> str:
    return f"""
from relay_agent.core.failpoints import Point, arm, reach
arm({text!r})
for time in range(1, 10):
    print(time, flush=True)
    reach(Point.SENT)
"""


@pytest.mark.parametrize(("text", "count"), [("sent", 1), ("sent:3", 3)])
def test_the_process_dies_when_the_point_is_reached_for_the_nth_time(text: str, count: int) -> None:
    """By SIGKILL, so that nothing is flushed or closed; reported by a line before each time, which is flushed."""
    ended = subprocess.run([sys.executable, "-c", program(text)], capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout.split()) == (-signal.SIGKILL, [str(time) for time in range(1, count + 1)])


@pytest.mark.parametrize(("text", "count"), [("sent:stop", 1), ("sent:3:stop", 3)])
def test_the_process_freezes_instead_if_the_text_says_so_and_goes_on_when_it_is_continued(text: str, count: int) -> None:
    with subprocess.Popen([sys.executable, "-c", program(text)], stdout=subprocess.PIPE, text=True) as frozen:
        assert frozen.stdout is not None
        assert [frozen.stdout.readline().strip() for _ in range(count)] == [str(time) for time in range(1, count + 1)]
        assert os.WIFSTOPPED(os.waitpid(frozen.pid, os.WUNTRACED)[1])
        frozen.send_signal(signal.SIGCONT)
        assert frozen.stdout.read().split() == [str(time) for time in range(count + 1, 10)]
    assert frozen.returncode == 0
