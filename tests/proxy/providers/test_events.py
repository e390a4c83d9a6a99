"""Events out of bytes, however those were cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_proxy.providers import events as module
from modelsplit_proxy.providers.events import BrokenAnswerError, EventReader, TooLongError, checked

STREAM = (
    b": hello\n\n"
    b'event: a\r\ndata: {"n":1}\r\n\r\n'
    b'data: {"n":\ndata: 2}\n\n'
    b"data: [DONE]\n\n"
    b'data: {"half":'
)


def test_events_with_their_bytes_and_their_objects() -> None:
    events = EventReader().feed(STREAM)
    assert [event.data for event in events] == [{"n": 1}, {"n": 2}, {}]
    assert events[0].raw == b'event: a\r\ndata: {"n":1}\r\n\r\n'
    assert events[2].text == b"[DONE]"


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_cuts_change_nothing(cuts: list[int]) -> None:
    reader, events, at = EventReader(), [], 0
    for cut in [*sorted(cuts), len(STREAM)]:
        events += reader.feed(STREAM[at:cut])
        at = cut
    assert events == EventReader().feed(STREAM)


@pytest.mark.parametrize("text", [b'{"n":1}', b"{}", b""])
def test_an_event_that_says_nothing_is_no_hole(text: bytes) -> None:
    [event] = EventReader().feed(b"data: %b\n\n" % text)
    assert checked(event) == event.data


@pytest.mark.parametrize("text", [b"{half", b"[1]", b"7", b"\xff"])
def test_an_event_that_cannot_be_read_is_a_hole(text: bytes) -> None:
    [event] = EventReader().feed(b"data: %b\n\n" % text)
    with pytest.raises(BrokenAnswerError):
        checked(event)


def test_an_event_without_end_is_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVENT_MAX_BYTES", 100)
    reader = EventReader()
    for _ in range(10):
        reader.feed(b"data: 12345678901234\n\n")
    for _ in range(4):
        reader.feed(b"data: 12345678901234\n")
    with pytest.raises(TooLongError):
        reader.feed(b"data: 12345678901234\n")
