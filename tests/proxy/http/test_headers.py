"""Which header lines pass, which stop here, and who may speak in our name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_proxy.http import headers

Raw = list[tuple[bytes, bytes]]
Passing = Callable[[Raw], list[bytes]]
Case = Callable[[bytes], bytes]

HOP_BY_HOP = [
    b"Connection",
    b"Keep-Alive",
    b"Proxy-Connection",
    b"Proxy-Authenticate",
    b"Proxy-Authorization",
    b"TE",
    b"Trailer",
    b"Transfer-Encoding",
    b"Upgrade",
]
ASKED = [
    b"X-LLM-Role",
    b"X-LLM-Context",
    b"X-LLM-Retry-Level",
    b"X-LLM-Escalate",
    b"X-LLM-Job-Id",
    b"X-LLM-Purpose",
    b"X-LLM-Max-Wait-Ms",
    b"X-LLM-Timeout-Ms",
    b"X-LLM-No-Fallback",
    b"X-LLM-Telemetry",
    b"X-Request-Id",
]
TOLD = [
    b"X-Request-Id",
    b"request-id",
    b"X-LLM-Role",
    b"X-LLM-Context",
    b"X-LLM-Provider",
    b"X-LLM-Model",
    b"X-LLM-Requested-Model",
    b"X-LLM-Attempt",
    b"X-LLM-Fallback-Used",
    b"X-LLM-Queue-Wait-Ms",
    b"X-LLM-Queue-Position",
    b"X-LLM-Route-Reason",
    b"X-LLM-Variant",
    b"X-LLM-Error-Code",
    b"Server-Timing",
    b"RateLimit",
    b"RateLimit-Policy",
    b"Retry-After",
]
CASES = st.sampled_from([bytes.lower, bytes.upper, bytes.title, bytes.swapcase, bytes])
DIRECTIONS = pytest.mark.parametrize(
    "passing", [headers.request_lines, headers.relayed_lines, headers.tagged_base_lines]
)


# --- End to end or hop by hop -----------------------------------------------------------------


@DIRECTIONS
@given(name=st.sampled_from([*HOP_BY_HOP, b"Content-Length"]), case=CASES)
def test_hop_by_hop_headers_stop_here_in_any_case(
    passing: Passing, name: bytes, case: Case
) -> None:
    assert passing([(case(name), b"x"), (b"Accept", b"*/*")]) == [b"Accept: */*\r\n"]


@DIRECTIONS
@pytest.mark.parametrize(
    "connection",
    [
        [b"close, X-Secret"],
        [b"x-secret"],
        [b" keep-alive ,  X-SECRET ,"],
        [b"close", b"x-Secret"],
    ],
)
def test_what_the_connection_header_names_stops_here_too(
    passing: Passing, connection: list[bytes]
) -> None:
    raw = [(b"X-Secret", b"1"), *((b"CONNECTION", value) for value in connection), (b"A", b"b")]
    assert passing(raw) == [b"A: b\r\n"]


@DIRECTIONS
def test_everything_else_passes_byte_for_byte_and_in_order(passing: Passing) -> None:
    raw = [
        (b"Accept", b"text/event-stream"),
        (b"connection", b"keep-alive"),
        (b"Set-Cookie", b"a=1"),
        (b"Set-Cookie", b"b=\xe4\xf6"),
        (b"Authorization", b"Bearer k"),
        (b"traceparent", b"00-1-2-01"),
        (b"Content-Type", b"application/json"),
        (b"via", b"1.0 cache"),
    ]
    passed = [b"%b: %b\r\n" % pair for pair in raw if pair[0] != b"connection"]
    assert passing(raw) == passed


# --- Our own names ----------------------------------------------------------------------------


@given(name=st.sampled_from([*ASKED, b"Host", b"Expect", b"Origin"]), case=CASES)
def test_what_a_client_asks_of_us_never_reaches_the_upstream(name: bytes, case: Case) -> None:
    assert headers.request_lines([(case(name), b"HEAVY")]) == []


@given(
    name=st.sampled_from([*TOLD, b"x-should-retry", b"Access-Control-Expose-Headers"]), case=CASES
)
def test_no_upstream_speaks_in_our_name_where_we_tag(name: bytes, case: Case) -> None:
    assert headers.tagged_base_lines([(case(name), b"forged")]) == []


def test_a_header_that_was_meant_for_us_alone_stops_here() -> None:
    raw = [(b"X-Api-Key", b"ours"), (b"Authorization", b"theirs"), (b"x-llm-role", b"x")]
    assert headers.request_lines(raw, frozenset({b"x-api-key"})) == [b"Authorization: theirs\r\n"]
    assert len(headers.request_lines(raw)) == 2


def test_no_upstream_says_which_pages_may_read_an_answer() -> None:
    told = [
        (b"Access-Control-Allow-Origin", b"*"),
        (b"Access-Control-Allow-Credentials", b"true"),
        (b"Access-Control-Expose-Headers", b"*"),
    ]
    assert headers.relayed_lines(told) == headers.rewritten_lines(told) == []
    assert headers.tagged_base_lines(told) == []


def test_where_we_do_not_tag_the_upstreams_own_names_pass() -> None:
    assert headers.relayed_lines([(b"RateLimit", b"x")]) == [b"RateLimit: x\r\n"]


# --- Loops ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("via", "looped"),
    [
        ([], False),
        ([b"1.1 modelsplit"], True),
        ([b"1.1 ModelSplit"], True),
        ([b"HTTP/1.1 modelsplit"], True),
        ([b"1.0 fred, 1.1 modelsplit (inner)"], True),
        ([b"1.0 fred", b"1.1 modelsplit"], True),
        ([b"1.1 modelsplit-lab", b"1.1 modelsplit"], True),
        ([b"1.1 modelsplit-lab"], False),
        ([b"1.1 not-modelsplit"], False),
        ([b"1.1 fred (modelsplit)"], False),
        ([b"modelsplit"], False),
        ([b""], False),
    ],
)
def test_a_request_that_has_been_here_is_known_by_its_via(
    via: list[bytes], *, looped: bool
) -> None:
    raw: Raw = [(b"X-Via", b"1.1 modelsplit"), *((b"ViA", value) for value in via)]
    assert headers.loops(raw) == looped


def test_the_line_we_add_is_the_one_we_look_for() -> None:
    name, _, value = headers.VIA_LINE.strip().partition(b": ")
    assert headers.loops([(name, value)])


# --- Request ids ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "valid"),
    [
        ("req-1_A.b", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("", False),
        (None, False),
        ("a b", False),
        ("a\n", False),
        ("ä", False),
        ('"', False),
        ("\u0661", False),
    ],
)
def test_a_request_id_is_kept_if_it_can_be_repeated_everywhere(
    said: str | None, *, valid: bool
) -> None:
    assert headers.valid_request_id(said) == valid
