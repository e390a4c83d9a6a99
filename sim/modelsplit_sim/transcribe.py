"""/v1/audio/transcriptions, as in Ollama's source: a form in, one text out.

The audio becomes a chat that streams, so the head goes out with the first token, as NDJSON;
the text follows when it is whole. A run that fails after that leaves nothing but the head.
"""

from __future__ import annotations

import email
import email.policy
from typing import TYPE_CHECKING

from .dialects import Dialect
from .errors import ApiError
from .gojson import dumps
from .reply import NDJSON

if TYPE_CHECKING:
    from .ask import Ask
    from .dialects import Result
    from .gojson import Fields

QUESTION = "What exact words are spoken in this audio?"


def read_form(body: bytes, content_type: str) -> Fields:
    """The form's text fields; the file's size as ``file``. Raises ApiError 400."""
    message = email.message_from_bytes(
        f"Content-Type: {content_type}\r\n\r\n".encode("latin-1") + body, policy=email.policy.HTTP
    )
    if message.get_content_type() != "multipart/form-data" or not message.is_multipart():
        text = "request Content-Type isn't multipart/form-data"
        raise ApiError(400, f"failed to parse multipart form: {text}")
    fields: Fields = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        if not isinstance(name, str) or not isinstance(content, bytes):
            continue
        if part.get_filename() is None:
            fields.setdefault(name, content.decode("utf-8", "replace"))
        else:
            fields[name] = len(content)
    return fields


def as_chat(fields: Fields) -> Fields:
    """The chat that is asked of the model. Raises ApiError 400."""
    if not fields.get("model"):
        raise ApiError(400, "model is required")
    size = fields.get("file")
    if not isinstance(size, int):
        raise ApiError(400, "file is required: http: no such file")
    if not size:
        raise ApiError(400, "audio file is empty")
    return {"model": fields["model"], "messages": [{"role": "user", "content": QUESTION}]}


class Transcription(Dialect):
    """Nothing but the head until the text is whole."""

    stream_headers = (("Content-Type", NDJSON),)

    def __init__(self, ask: Ask) -> None:
        super().__init__(ask)
        self._text = ""

    def token(self, text: str) -> bytes:
        self._text += text
        return b""

    def closing(self, result: Result) -> list[bytes]:
        del result
        return [dumps({"text": self._text.strip()}) + b"\n"]
