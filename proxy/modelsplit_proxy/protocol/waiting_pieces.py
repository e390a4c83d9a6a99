"""What a stream may hold before anything has come, and what its clients pass over.

In NDJSON an empty token, because blank lines and comments break several clients; in SSE a
comment.
"""

from __future__ import annotations

import orjson


def of_generate(model: str, created_at: str) -> bytes:
    return _line({"model": model, "created_at": created_at, "response": "", "done": False})


def of_chat(model: str, created_at: str) -> bytes:
    message = {"role": "assistant", "content": ""}
    return _line({"model": model, "created_at": created_at, "message": message, "done": False})


def comment(model: str, created_at: str) -> bytes:
    del model, created_at
    return b": waiting for the model\n\n"


def _line(piece: dict[str, object]) -> bytes:
    return orjson.dumps(piece) + b"\n"
