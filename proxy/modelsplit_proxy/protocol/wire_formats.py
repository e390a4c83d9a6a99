"""The wire format of each dialect."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Final

from modelsplit_policy.vocabulary import Dialect
from modelsplit_proxy.protocol import answer_text, error_body, stream_end
from modelsplit_proxy.protocol.endpoint import WireFormat

# What a last line holds and a token never does: inside a JSON string quotes are escaped. So
# many blanks between two tokens are more than anybody writes, and bound a mark's length.
_GAP: Final = rb"\s{0,16}"

OLLAMA: Final = WireFormat(
    dialect=Dialect.OLLAMA,
    stream_type=b"application/x-ndjson",
    judge=stream_end.judge_ndjson,
    data=stream_end.ndjson_data,
    kind=stream_end.ollama_kind,
    usage=stream_end.ollama_usage,
    at_limit=answer_text.ollama_at_limit,
    end_mark=re.compile(rb'"done"%b:%btrue' % (_GAP, _GAP)),
    error_body=error_body.ollama_body,
    error_in_stream=error_body.ollama_body,
    as_last_line=stream_end.as_ndjson_line,
)
OPENAI: Final = WireFormat(
    dialect=Dialect.OPENAI,
    stream_type=b"text/event-stream",
    judge=stream_end.judge_sse,
    data=stream_end.sse_data,
    kind=stream_end.event_kind,
    usage=stream_end.openai_usage,
    at_limit=answer_text.openai_at_limit,
    end_mark=re.compile(
        rb'\[DONE\]|"finish_reason"%b:%b"|"choices"%b:%b\[%b\]' % (_GAP, _GAP, _GAP, _GAP, _GAP)
        + rb'|"response\.(?:completed|incomplete|failed)"'
    ),
    error_body=error_body.sdk_body,
    error_in_stream=error_body.sdk_event,
    ping=b": ping\n\n",
)
ANTHROPIC: Final = WireFormat(
    dialect=Dialect.ANTHROPIC,
    stream_type=b"text/event-stream",
    judge=stream_end.judge_sse,
    data=stream_end.sse_data,
    kind=stream_end.event_kind,
    usage=stream_end.openai_usage,
    at_limit=answer_text.anthropic_at_limit,
    end_mark=re.compile(rb'"message_(?:delta|stop)"'),
    error_body=error_body.sdk_body,
    error_in_stream=error_body.sdk_event,
    ping=b'event: ping\ndata: {"type": "ping"}\n\n',
)

BY_DIALECT: Final = MappingProxyType({wire.dialect: wire for wire in (OLLAMA, OPENAI, ANTHROPIC)})
