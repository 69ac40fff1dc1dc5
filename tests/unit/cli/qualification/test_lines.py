"""The numbers of a qualification's lines."""

from __future__ import annotations

import re

from relay_agent.cli.checks.preflight import CHECK_IDS
from relay_agent.cli.qualification.lines import CHECK_EXPECTED, CHECK_LINES, REQUIREMENTS, Result, judged, not_applicable, not_run, numbered


def test_numbers_have_one_form_and_follow_each_other() -> None:
    parts = {part: [number for number in REQUIREMENTS if number.startswith(part)] for part in ("IQ", "OQ")}
    assert all(re.fullmatch(r"(IQ|OQ)-\d\d", number) for number in REQUIREMENTS)
    for part, numbers in parts.items():
        assert numbers == [f"{part}-{place:02}" for place in range(1, len(numbers) + 1)]


def test_every_check_has_its_line_which_names_it() -> None:
    assert list(CHECK_LINES) == list(CHECK_EXPECTED) == list(CHECK_IDS)
    assert [check_id for check_id, number in CHECK_LINES.items() if not REQUIREMENTS[number].startswith(f"Check {check_id}: ")] == []


def test_no_check_ever_gets_another_number() -> None:
    """Signed reports refer to these. A new check adds its pair; no other pair may change."""
    known = "configuration 01 token 02 clock 03 state-dir 04 platform 05 access 06 agent 07 enabled 08 queue 09 credentials 10 sqs 11"
    known += " cloudwatch 12 secure-key 13 target 14 syslog 29"
    assert {name: number.removeprefix("OQ-") for name, number in CHECK_LINES.items()} == dict(batched(known.split()))


def batched(words: list[str]) -> zip[tuple[str, str]]:
    return zip(words[::2], words[1::2], strict=True)


def test_a_line_that_is_repeated_has_a_second_number() -> None:
    assert list(numbered("IQ-04", 3)) == ["IQ-04.1", "IQ-04.2", "IQ-04.3"]
    assert list(numbered("OQ-14", 1)) == ["OQ-14"]
    assert list(numbered("OQ-17", 0)) == []


def test_a_line_has_the_requirement_of_its_number_and_one_of_four_results() -> None:
    lines = [judged("IQ-04.2", "e", "o", good) for good in (True, False)] + [
        not_run("IQ-04", "e", "why"),
        not_applicable("IQ-04", "e", "why"),
    ]
    assert {line.requirement for line in lines} == {REQUIREMENTS["IQ-04"]}
    assert [line.result for line in lines] == list(Result)
    assert [line.remark for line in lines] == ["", "", "why", "why"]
