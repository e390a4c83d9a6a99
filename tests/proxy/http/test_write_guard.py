"""Who may write on the admin port."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from modelsplit_proxy.http.write_guard import cross_site, is_json, is_this_machine


def sent(*pairs: tuple[str, str]) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict([("Host", "127.0.0.1:11436"), *pairs]))


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [("Sec-Fetch-Site", "same-origin")],
        [("sec-fetch-site", "None")],
        [("Origin", "http://127.0.0.1:11436"), ("Sec-Fetch-Site", "same-origin")],
        [("Origin", "HTTPS://127.0.0.1:11436")],
    ],
)
def test_a_program_and_a_page_of_our_own_may(pairs: list[tuple[str, str]]) -> None:
    assert cross_site(sent(*pairs)) is None


@pytest.mark.parametrize(
    "pairs",
    [
        [("Sec-Fetch-Site", "cross-site")],
        [("Sec-Fetch-Site", "same-site")],
        [("Sec-Fetch-Site", "")],
        [("Origin", "http://evil.example")],
        [("Origin", "null")],
        [("Origin", "")],
        [("Origin", "http://localhost:11436")],
        [("Origin", "http://127.0.0.1")],
        [("Origin", "http://127.0.0.1:8080")],
        [("Origin", "app://127.0.0.1:11436")],
        [("Origin", "http://user@127.0.0.1:11436")],
        [("Origin", "http://[broken")],
        [("Origin", "http://127.0.0.1:11436"), ("Sec-Fetch-Site", "cross-site")],
    ],
)
def test_a_page_of_another_origin_may_not(pairs: list[tuple[str, str]]) -> None:
    failure = cross_site(sent(*pairs))
    assert failure is not None
    assert (failure.status, failure.code, failure.reason) == (403, "E_FORBIDDEN", "origin_denied")


def test_without_a_host_no_origin_is_our_own() -> None:
    assert cross_site(CIMultiDictProxy(CIMultiDict({"Origin": "http://"}))) is not None


@pytest.mark.parametrize(
    ("types", "fits"),
    [
        ([], True),
        (["application/json"], True),
        (["Application/JSON; charset=utf-8"], True),
        (["text/plain"], False),
        (["application/x-www-form-urlencoded"], False),
        (["multipart/form-data; boundary=application/json"], False),
        (["application/json", "text/plain"], False),
        ([""], False),
        (["application/jsonp"], False),
    ],
)
def test_reports_are_json(types: list[str], *, fits: bool) -> None:
    assert is_json(sent(*(("Content-Type", value) for value in types))) is fits


@pytest.mark.parametrize(
    ("remote", "ours"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:10.0.0.1", False),
        ("10.0.0.1", False),
        ("fe80::1%eth0", False),
        ("0.0.0.0", False),
        ("", False),
        ("localhost", False),
    ],
)
def test_this_machine_is_its_loopback(remote: str, *, ours: bool) -> None:
    assert is_this_machine(remote) is ours
