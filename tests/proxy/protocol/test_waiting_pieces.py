"""What a stream may hold before anything has come."""

from __future__ import annotations

import orjson

from modelsplit_proxy.protocol import waiting_pieces

AT = "2026-11-23T00:29:03.25Z"


def test_an_empty_token_of_each_native_route() -> None:
    line = waiting_pieces.of_generate("m:1b", AT)
    assert line.endswith(b"\n")
    assert orjson.loads(line) == {"model": "m:1b", "created_at": AT, "response": "", "done": False}
    line = waiting_pieces.of_chat("m:1b", AT)
    assert line.endswith(b"\n")
    assert list(orjson.loads(line)) == ["model", "created_at", "message", "done"]
    assert orjson.loads(line)["message"] == {"role": "assistant", "content": ""}


def test_a_comment_where_streams_are_events() -> None:
    assert waiting_pieces.comment("m:1b", AT) == b": waiting for the model\n\n"
