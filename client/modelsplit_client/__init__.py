"""The Python client of modelsplit: roles, streams, structured output, jobs.

    from modelsplit_client import Client

    with Client() as client:
        print(client.generate("What next?", "PLANNER").text)

docs/python-client.md has the rest. It speaks HTTP, and imports nothing of the proxy.
"""

from __future__ import annotations

try:
    import httpx  # noqa: F401 - only whether it is there
except ImportError:
    raise ModuleNotFoundError(
        "modelsplit_client needs httpx, which modelsplit's extra client brings: pip install httpx",
        name="httpx",
    ) from None

from modelsplit_client.answers import Answer, Piece, ToolCall
from modelsplit_client.async_client import AsyncClient, AsyncJob, AsyncTool
from modelsplit_client.async_transport import AsyncStream
from modelsplit_client.calls import CallOptions, Role
from modelsplit_client.dialect import Dialect
from modelsplit_client.errors import (
    BadRequestError,
    BudgetExhaustedError,
    BudgetNotApprovedError,
    CallError,
    CallTimeoutError,
    EscalationDeniedError,
    ForbiddenError,
    InternalError,
    LoopError,
    ModelNotFoundError,
    ModelsplitError,
    OverloadThrottledError,
    ProxyConnectionError,
    ProxyTimeoutError,
    RateLimitedError,
    RequestTooLargeError,
    SchemaInvalidError,
    StreamBrokenError,
    UnauthorizedError,
    UnreachableError,
    UpstreamError,
)
from modelsplit_client.purpose import Purpose, ToolResult, needs_llm
from modelsplit_client.sync_client import Client, Job, Tool
from modelsplit_client.sync_transport import Stream
from modelsplit_client.telemetry import Telemetry

__all__ = [
    "Answer",
    "AsyncClient",
    "AsyncJob",
    "AsyncStream",
    "AsyncTool",
    "BadRequestError",
    "BudgetExhaustedError",
    "BudgetNotApprovedError",
    "CallError",
    "CallOptions",
    "CallTimeoutError",
    "Client",
    "Dialect",
    "EscalationDeniedError",
    "ForbiddenError",
    "InternalError",
    "Job",
    "LoopError",
    "ModelNotFoundError",
    "ModelsplitError",
    "OverloadThrottledError",
    "Piece",
    "ProxyConnectionError",
    "ProxyTimeoutError",
    "Purpose",
    "RateLimitedError",
    "RequestTooLargeError",
    "Role",
    "SchemaInvalidError",
    "Stream",
    "StreamBrokenError",
    "Telemetry",
    "Tool",
    "ToolCall",
    "ToolResult",
    "UnauthorizedError",
    "UnreachableError",
    "UpstreamError",
    "needs_llm",
]
