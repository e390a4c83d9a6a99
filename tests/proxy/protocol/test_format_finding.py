"""What a look at an answer's form found."""

from __future__ import annotations

from modelsplit_proxy.protocol.format_finding import FormatFinding


def test_an_answer_about_which_nothing_is_said_fits() -> None:
    assert (FormatFinding().problem, FormatFinding().unchecked) == (None, None)
    assert FormatFinding("no JSON") != FormatFinding(unchecked="no JSON")
