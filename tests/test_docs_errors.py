"""docs/errors.md says of every code what the table in the code says, and nothing more."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from modelsplit_policy.failures import ERRORS, ErrorCode
from modelsplit_policy.failures import Failure as Failed
from modelsplit_proxy.protocol.error_body import Scene, fields

PAGE = (Path(__file__).parents[1] / "docs" / "errors.md").read_text(encoding="utf-8")
HEADING = re.compile(r"`(E_\w+)` · (\d+) · (\w+) · (do not retry|may retry)\n")


class Entry(NamedTuple):
    status: int
    error_type: str
    retry: bool | None
    reasons: list[str]


def entries() -> dict[str, Entry]:
    found = {}
    for part in PAGE.split("\n### ")[1:]:
        heading = HEADING.match(part)
        assert heading, part.partition("\n")[0]
        code, status, error_type, advice = heading.groups()
        rows = re.findall(r"^\| `(\w+)` \| \S.* \|$", part, re.MULTILINE)
        retry = False if advice == "do not retry" else None
        found[code] = Entry(int(status), error_type, retry, rows)
    return found


def test_every_code_is_described_and_no_other() -> None:
    assert set(entries()) == {code.value for code in ERRORS} == {code.value for code in ErrorCode}


@pytest.mark.parametrize("code", ErrorCode)
def test_an_entry_is_what_the_code_says(code: ErrorCode) -> None:
    entry, spec = entries()[code], ERRORS[code]
    assert (entry.status, entry.error_type, entry.retry) == (
        spec.status,
        spec.error_type,
        spec.retry,
    )
    assert len(entry.reasons) == len(set(entry.reasons))
    assert set(entry.reasons) == {reason.value for reason in spec.reasons}


def test_the_page_names_the_fields_of_every_error() -> None:
    code = ErrorCode.INTERNAL
    (reason,) = ERRORS[code].reasons
    said = re.search(r"At the `…`, in both: (.+?)\.", PAGE, re.DOTALL)
    assert said
    names = re.findall(r"`(\w+)`", said[1])
    assert names == list(fields(Failed(code, reason, "text", "Phrase"), Scene("id")))
