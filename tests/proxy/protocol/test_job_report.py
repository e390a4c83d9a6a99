"""Reports of jobs: what is taken, and which field a refusal names."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.vocabulary import JobState
from modelsplit_proxy.http.write_guard import BODY_MAX
from modelsplit_proxy.protocol.job_report import (
    FinishReport,
    ReportError,
    ToolReport,
    check_id,
    read_finish,
    read_start,
    read_tool,
)


def test_a_start_says_nothing_else() -> None:
    for raw in (b"", b"  ", b"{}", b" { } "):
        read_start(raw)


@pytest.mark.parametrize(
    ("raw", "report"),
    [
        (b'{"name":"grep","duration_ms":80.5,"ok":true}', ToolReport("grep", 80_500, ok=True)),
        (b'{"name":"a","duration_ms":0,"ok":false}', ToolReport("a", 0, ok=False)),
        (
            b'{"name":"%b","duration_ms":86399999.9994,"ok":true}' % (b"A.z_0-9" * 9 + b"x"),
            ToolReport("A.z_0-9" * 9 + "x", 86_399_999_999, ok=True),
        ),
        (b'{"name":"a","duration_ms":-0.0,"ok":true}', ToolReport("a", 0, ok=True)),
    ],
)
def test_a_tool_that_has_run(raw: bytes, report: ToolReport) -> None:
    assert read_tool(raw) == report


@pytest.mark.parametrize(
    ("raw", "report"),
    [
        (b'{"ok":true}', FinishReport(JobState.OK, None)),
        (b'{"ok":false,"why":"no luck"}', FinishReport(JobState.FAILED, "no luck")),
        (b'{"ok":false,"why":null}', FinishReport(JobState.FAILED, None)),
        (b'{"ok":true,"why":"%b"}' % (b"x" * 200), FinishReport(JobState.OK, "x" * 200)),
    ],
)
def test_a_job_that_is_over(raw: bytes, report: FinishReport) -> None:
    assert read_finish(raw) == report


GOOD = {"name": "grep", "duration_ms": 1, "ok": True}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, 'name "": use 1 to 64'),
        ({"name": "x" * 65}, "name "),
        ({"name": "a b"}, "name "),
        ({"name": "a\n"}, "name "),
        ({"name": "grep:x"}, "name "),
        ({"name": "größe"}, "name "),
        ({"name": 7}, "name 7"),
        ({"name": None}, "name is missing"),
        ({"duration_ms": -0.001}, "duration_ms -0.001: send milliseconds, 0 to less than 86400000"),
        ({"duration_ms": 86_400_000}, "duration_ms 86400000"),
        ({"duration_ms": 1e300}, "duration_ms 1e+300"),
        ({"duration_ms": True}, "duration_ms true"),
        ({"duration_ms": "5"}, 'duration_ms "5"'),
        ({"duration_ms": None}, "duration_ms is missing"),
        ({"duration_ms": [1]}, "duration_ms "),
        ({"ok": 1}, "ok 1: send true or false"),
        ({"ok": "true"}, 'ok "true"'),
        ({"ok": None}, "ok is missing"),
        ({"job_id": "x"}, '"job_id" is no field of this report; known are name, duration_ms, ok'),
    ],
)
def test_a_refusal_names_the_field(changes: dict[str, object], field: str) -> None:
    with pytest.raises(ReportError) as refused:
        read_tool(orjson.dumps(GOOD | changes))
    assert str(refused.value).startswith(field)


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b"{}", "ok is missing"),
        (b'{"ok":null}', "ok is missing"),
        (b'{"ok":false,"why":7}', "why 7: send a text of at most 200"),
        (b'{"ok":false,"why":"%b"}' % (b"x" * 201), 'why "xxx'),
        (b'{"ok":false,"state":"failed"}', '"state" is no field'),
    ],
)
def test_a_finish_that_cannot_be_read(raw: bytes, field: str) -> None:
    with pytest.raises(ReportError) as refused:
        read_finish(raw)
    assert str(refused.value).startswith(field)


@pytest.mark.parametrize(
    "raw",
    [
        *(b"{", b"[]", b"null", b"7", b'"x"', b"\xff", b"\xef\xbb\xbf{}", b"{}{}", b'{"a":NaN}'),
        *(b'{"ok":1e999}', b'{"why":"\\ud800"}', b"[" * 3000, b" " * (BODY_MAX + 1)),
    ],
)
def test_a_body_that_is_no_object_is_named_so(raw: bytes) -> None:
    for read in (read_start, read_tool, read_finish):
        with pytest.raises(ReportError) as refused:
            read(raw)
        assert str(refused.value).split()[0] in {"body:", "ok", "name", '"ok"', '"why"'}


def test_a_start_with_something_to_say_is_refused() -> None:
    with pytest.raises(ReportError, match='"at" is no field of this report; there are none'):
        read_start(b'{"at":1}')


@pytest.mark.parametrize("job_id", ["a", "A.b_c:d-9", "x" * 128])
def test_an_id_that_a_call_may_have(job_id: str) -> None:
    assert check_id(job_id) == job_id


@pytest.mark.parametrize("job_id", ["", "x" * 129, "a b", "a/b", "a\n", "ä", "..%2f", "\udcff"])
def test_an_id_that_no_call_may_have(job_id: str) -> None:
    with pytest.raises(ReportError, match=r"^id "):
        check_id(job_id)


@given(raw=st.binary(max_size=200))
def test_whatever_is_posted_is_read_or_refused_in_a_sentence(raw: bytes) -> None:
    for read in (read_start, read_tool, read_finish):
        sentence = "taken"
        try:
            read(raw)
        except ReportError as refused:
            sentence = str(refused)
        assert 0 < len(sentence) <= 200
        orjson.dumps(sentence)
