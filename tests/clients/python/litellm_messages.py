"""The Messages API as LiteLLM writes it, over an Ollama: an implementation that is not ours.

Serves on a free port, which it prints; ``/PORT/v1/messages`` asks the Ollama at that port.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import litellm
from aiohttp import web


async def messages(request: web.Request) -> web.StreamResponse:
    body: dict[str, Any] = await request.json()
    ollama = f"http://127.0.0.1:{request.match_info['port']}/v1"
    asked = body | {"model": f"openai/{body['model']}", "api_base": ollama}
    answer: Any = await litellm.anthropic.messages.acreate(**asked, api_key="unused")
    if not body.get("stream"):
        return web.json_response(answer if isinstance(answer, dict) else answer.model_dump())
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    async for piece in answer:
        await response.write(piece if isinstance(piece, bytes) else _event(piece))
    await response.write_eof()
    return response


def _event(event: dict[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


async def main() -> None:
    app = web.Application()
    app.router.add_post("/{port}/v1/messages", messages)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(main())
