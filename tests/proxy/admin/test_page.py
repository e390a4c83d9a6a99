"""What an admin route answers with, as values."""

from __future__ import annotations

import orjson
import pytest

from modelsplit_policy.failures import ErrorCode
from modelsplit_proxy.admin.page import PageAsked, failed, json_page, text_page, wants_text
from modelsplit_proxy.records.query_error import QueryError


def test_a_page_is_bytes_with_a_type() -> None:
    page = json_page({"a": "\udfff", 1: 2**70}, status=503)
    assert (orjson.loads(page.body), page.status) == ({"a": "\ufffd", "1": None}, 503)
    assert text_page("ä").content_type == "text/plain; charset=utf-8"


def test_a_failure_is_a_sentence_and_a_code() -> None:
    page = failed("no such page", ErrorCode.BAD_REQUEST, 404)
    body = {"error": "no such page", "error_code": "E_BAD_REQUEST"}
    assert (orjson.loads(page.body), page.status) == (body, 404)


@pytest.mark.parametrize(
    ("format_", "accept", "wanted"),
    [
        (None, "", False),
        (None, "*/*", False),
        (None, "text/plain", True),
        ("json", "text/plain", False),
        ("text", "", True),
    ],
)
def test_text_is_for_who_wants_it(format_: str | None, accept: str, *, wanted: bool) -> None:
    query = {} if format_ is None else {"format": format_}
    assert wants_text(PageAsked(query, accept)) is wanted


def test_another_format_is_told_those_there_are() -> None:
    with pytest.raises(QueryError, match='format "xml" is unknown; use text, trace or json'):
        wants_text(PageAsked({"format": "xml"}), "trace")
