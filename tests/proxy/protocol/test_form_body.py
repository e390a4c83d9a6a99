"""The model in a form: found where Go finds it, refused where two readers could differ."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_proxy.http.body import BodyError
from modelsplit_proxy.protocol.form_body import read_form
from modelsplit_proxy.protocol.json_body import Body

TYPE = "multipart/form-data; boundary=B"
FILE = b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav'
MODEL = b'Content-Disposition: form-data; name="model"'


def form(*parts: tuple[bytes, bytes]) -> bytes:
    pieces = [b"--B\r\n%b\r\n\r\n%b\r\n" % part for part in parts]
    return b"".join([*pieces, b"--B--\r\n"])


def read(*parts: tuple[bytes, bytes], query: str = "") -> Body:
    return read_form(form(*parts), TYPE, query)


def refused(raw: bytes, content_type: str = TYPE, query: str = "") -> tuple[str, str]:
    with pytest.raises(BodyError) as caught:
        read_form(raw, content_type, query)
    assert caught.value.failure.status == 400
    return caught.value.failure.reason, caught.value.failure.message


def test_the_model_is_replaced_in_place_and_nothing_else() -> None:
    audio = bytes(range(256)) * 9
    body = read((MODEL, b"planner"), (FILE, audio), (MODEL.replace(b"model", b"language"), b"en"))
    assert (body.model, body.fields.get("model")) == ("planner", "planner")
    assert body.with_model("planner") is body.raw
    assert body.with_model("qwen3:4b") == body.raw.replace(b"planner", b"qwen3:4b")


@pytest.mark.parametrize(
    "head",
    [
        b"content-disposition: Form-Data; Name=model",
        b'Content-Disposition:form-data;name="model" ',
        MODEL + b"\r\nContent-Type: text/plain; charset=utf-8",
        MODEL + b"\r\nContent-Transfer-Encoding: 8bit",
    ],
)
def test_ways_to_write_it_that_mean_one_thing(head: bytes) -> None:
    assert read((FILE, b"x"), (head, b"planner")).model == "planner"


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data; boundary=B",
        'Multipart/Form-Data; Boundary="B"',
        " multipart/form-data;boundary=B ",
    ],
)
def test_boundaries_are_read(content_type: str) -> None:
    assert read_form(form((MODEL, b"m")), content_type, "").model == "m"


def test_a_form_without_a_model_names_none_as_ollama_will_say() -> None:
    for parts in [((FILE, b"x"),), ((MODEL.replace(b"model", b"Model"), b"m"),)]:
        body = read(*parts)
        assert (body.model, body.span, body.with_model("x")) == ("", None, body.raw)
    assert read((MODEL, b"")).model == ""


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (form((MODEL, b"a"), (MODEL, b"b")), "more than once"),
        (form((MODEL + b'; filename="x"', b"a")), "not a plain field"),
        (form((MODEL + b"; filename*=UTF-8''x", b"a")), "not a plain field"),
        (form((MODEL + b"\r\nContent-Transfer-Encoding: quoted-printable", b"a")), "not a plain"),
        (form((b"Content-Disposition: form-data; name*=UTF-8''model", b"a")), "cannot be read"),
        (form((b"Content-Disposition: form-data; name*0=mo; name*1=del", b"a")), "cannot be"),
        (form((MODEL + b"; name=x", b"a")), "cannot be read"),
        (form((b"Content-Disposition: attachment; name=model", b"a")), "cannot be read"),
        (form((MODEL + b"\r\n" + MODEL, b"a")), "or several"),
        (form((b"X: y", b"a")), "no Content-Disposition"),
        (form((b'Content-Disposition: form-data;\r\n name="model"', b"a")), "malformed header"),
        (form((b"Content-Disposition : form-data; name=model", b"a")), "malformed header"),
        (form((MODEL + b"\nX: y", b"a")), "malformed header"),
        (b"", "does not begin"),
        (b"preamble\r\n" + form((MODEL, b"a")), "does not begin"),
        (form((MODEL, b"a")).replace(b"\r\n", b"\n"), "does not begin"),
        (b"--B\r\n\r\na\r\n--B--", "no Content-Disposition"),
        (b"--B\r\n" + MODEL + b"\r\n\r\n--B--", "no head"),
        (b"--B\r\n" + MODEL + b"\r\n\r\na", "stops in the middle"),
        (b"--B\r\n" + MODEL + b"\r\n\r\na\r\n--B x\r\n", "middle of a line"),
        (b"--B\r\n" + MODEL + b"\r\n\r\na\r\n--Bx\r\n--B--", "middle of a line"),
        (form((MODEL, b"a" * 1025)), "longer than 1024"),
        (form((MODEL + b"\r\nX: " + b"a" * 9000, b"a")), "too long"),
        (form(*[(FILE, b"x")] * 65), "more than 64"),
    ],
)
def test_a_form_that_could_be_read_otherwise_is_refused(raw: bytes, what: str) -> None:
    reason, message = refused(raw)
    assert what in message
    assert reason == ("ambiguous_model" if what == "more than once" else "bad_form")


@pytest.mark.parametrize("query", ["model=x", "a=1&model=", "mod%65l=x", "model"])
def test_a_model_in_the_query_would_win_at_ollama(query: str) -> None:
    assert refused(form((MODEL, b"a")), query=query)[0] == "ambiguous_model"
    assert read((MODEL, b"a"), query="beta=true&models=x").model == "a"


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "multipart/form-data",
        "multipart/mixed; boundary=B",
        "multipart/form-data; boundary=B; boundary=C",
        "multipart/form-data; boundary*=UTF-8''B",
        'multipart/form-data; boundary="B\\""',
        "multipart/form-data; boundary=",
    ],
)
def test_another_type_is_refused(content_type: str) -> None:
    assert refused(form((MODEL, b"a")), content_type)[0] == "bad_form"


@given(raw=st.binary(max_size=200), head=st.binary(max_size=60), value=st.binary(max_size=30))
def test_any_bytes_are_read_or_refused(raw: bytes, head: bytes, value: bytes) -> None:
    for whole in (raw, b"--B\r\n" + raw, form((head, value)), form((MODEL, value))):
        body = attempt(whole)
        if body is None:
            continue
        assert body.raw == whole
        if body.span is not None:
            start, end = body.span
            assert whole[start:end].decode("utf-8", "replace") == body.model


def attempt(raw: bytes) -> Body | None:
    """What is read; None if it is refused, as a client's fault."""
    try:
        return read_form(raw, TYPE, "")
    except BodyError:
        return None
