"""Embeddings.

Their refusal was observed; success was not, for the model of the recordings had none to give.
Its shapes are those of Ollama's documentation and source.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from typing import TYPE_CHECKING, Any

from .ask import Reader
from .clock import NS
from .errors import ApiError
from .generate import take_turn
from .reply import Reply, compatible, native
from .scheduler import Job

if TYPE_CHECKING:
    from .ask import Ask
    from .exchange import Exchange
    from .gojson import Fields
    from .models import ModelSpec
    from .world import World

_NO_EMBEDDINGS = "This server does not support embeddings. Start it with `--embeddings`"


async def embed(world: World, exchange: Exchange, fields: Fields) -> None:
    path = exchange.request.path
    if path == "/v1/embeddings" and not fields.get("input"):
        raise ApiError(400, "invalid input", early=True)
    if path == "/api/embeddings" and not fields.get("model"):
        raise ApiError(400, "model is required")
    ask = Reader(world.config, world.catalogue).embed(fields)
    job = Job(ask.spec, ask.num_ctx, ask.keep_alive_s)
    arrived = world.now()
    try:
        await take_turn(world, exchange, ask, job)
        if not ask.spec.embeds:
            raise ApiError(500 if path == "/api/embeddings" else 501, _NO_EMBEDDINGS)
        inputs = fields.get("input", fields.get("prompt"))
        vectors = [_vector(ask.spec, item) for item in _listed_inputs(inputs)]
        if path == "/v1/embeddings":
            packed = fields.get("encoding_format") == "base64"
            await exchange.send(_compatible(ask, vectors, packed=packed))
        else:
            await exchange.send(_native(path, ask, vectors, int((world.now() - arrived) * NS)))
    finally:
        world.leave(exchange, job)


def _listed_inputs(inputs: Any) -> list[str]:
    return [str(item) for item in inputs] if isinstance(inputs, list) else [str(inputs or "")]


def _vector(spec: ModelSpec, text: str) -> list[float]:
    """Numbers in [-1, 1) that depend on the text alone."""
    size = spec.embedding_length
    raw = hashlib.shake_128(text.encode("utf-8", "surrogatepass")).digest(size)
    return [(byte - 128) / 128 for byte in raw]


def _native(path: str, ask: Ask, vectors: list[list[float]], spent_ns: int) -> Reply:
    if path == "/api/embeddings":
        return native({"embedding": vectors[0]})
    times = {"total_duration": spent_ns, "load_duration": spent_ns}
    head = {"model": ask.name, "embeddings": vectors}
    return native(head | times | {"prompt_eval_count": ask.prompt_tokens})


def _compatible(ask: Ask, vectors: list[list[float]], *, packed: bool) -> Reply:
    """``packed``: as OpenAI's SDKs ask for by default, 32-bit floats in base64."""
    data = [
        {"object": "embedding", "embedding": _packed(vector) if packed else vector, "index": index}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": ask.prompt_tokens, "total_tokens": ask.prompt_tokens}
    return compatible({"object": "list", "data": data, "model": ask.name, "usage": usage})


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
