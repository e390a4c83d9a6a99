"""Our own Python client, sync and async, asked in the same words; and a proxy for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from modelsplit_client import AsyncClient, AsyncJob, AsyncStream, Client, Job, Piece, Stream

Asked = Client | Job | AsyncClient | AsyncJob
KINDS: tuple[type[Client | AsyncClient], ...] = (Client, AsyncClient)
DIALECTS = ("ollama", "openai")


async def ask(asked: Asked, method: str, *arguments: Any, **options: Any) -> Any:
    """``generate`` or ``chat``; the sync client's in a thread, since its proxy is in this loop."""
    call = getattr(asked, method)
    if isinstance(asked, AsyncClient | AsyncJob):
        return await call(*arguments, **options)
    return await asyncio.to_thread(call, *arguments, **options)


async def pieces(stream: Stream | AsyncStream, leave_after: int | None = None) -> list[Piece]:
    """The pieces of a stream in a ``for``; ``leave_after``: of so many, by a ``break``."""
    if isinstance(stream, Stream):
        return await asyncio.to_thread(_pieces, stream, leave_after)
    found = []
    async for piece in stream:
        found.append(piece)
        if len(found) == leave_after:
            break
    return found


def _pieces(stream: Stream, leave_after: int | None) -> list[Piece]:
    found = []
    for piece in stream:
        found.append(piece)
        if len(found) == leave_after:
            break
    return found


@contextlib.asynccontextmanager
async def closing(client: Client | AsyncClient) -> AsyncIterator[Client | AsyncClient]:
    """Closed at the end, whichever it is."""
    try:
        yield client
    finally:
        if isinstance(client, AsyncClient):
            await client.aclose()
        else:
            client.close()


def text(found: Sequence[Piece]) -> str:
    return "".join(piece.text for piece in found)
