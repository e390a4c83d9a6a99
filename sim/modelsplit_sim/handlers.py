"""The routes that answer without a generation, and the table that leads to all of them."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

from . import ask as asks
from .ask import Reader, find
from .clock import FOREVER_S, NS, rfc3339, wall_ns
from .dialects import Anthropic, Dialect, Native, OpenAIChat, OpenAICompletion
from .embeddings import embed
from .errors import ApiError
from .generate import generate
from .models import ModelSpec, full_name, model
from .reply import JSON, NDJSON, Reply, compatible, native
from .responses import Responses
from .transcribe import Transcription, as_chat

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .ask import Ask, Shape
    from .exchange import Exchange
    from .gojson import Fields
    from .scheduler import Runner
    from .world import World

    Handler = Callable[[World, Exchange, str], Awaitable[None]]
    BodyHandler = Callable[[World, Exchange, Fields], Awaitable[None]]

_DIGEST = re.compile(r"sha256[:-][0-9a-f]{64}")
# Observed: a loaded runner takes about an eighth more than its file.
_RUNNER_SIZE = 9 / 8


# -- reading


async def root(world: World, exchange: Exchange, _: str) -> None:
    del world
    headers = (("Content-Type", "text/plain; charset=utf-8"),)
    await exchange.send(Reply(200, headers, b"Ollama is running"))


async def version(world: World, exchange: Exchange, _: str) -> None:
    await exchange.send(native({"version": world.config.version}))


async def status(world: World, exchange: Exchange, _: str) -> None:
    del world
    await exchange.send(native({"cloud": {"disabled": True, "source": "env"}}))


async def tags(world: World, exchange: Exchange, _: str) -> None:
    # Observed: newest second first, then by name.
    specs = sorted(world.catalogue, key=lambda spec: (-(spec.modified_ns // NS), spec.name))
    await exchange.send(native({"models": [_tag(spec) for spec in specs]}))


async def ps(world: World, exchange: Exchange, _: str) -> None:
    runners = world.scheduler.runners.values()
    await exchange.send(native({"models": [_loaded(world, runner) for runner in runners]}))


async def list_models(world: World, exchange: Exchange, _: str) -> None:
    # Observed: an empty list is null.
    data = [_listed(spec) for spec in world.catalogue] or None
    await exchange.send(compatible({"object": "list", "data": data}))


async def one_model(world: World, exchange: Exchange, name: str) -> None:
    # In the source: the answer repeats the name it was asked for by.
    listed = _listed(find(world.catalogue, full_name(name)))
    await exchange.send(compatible(listed | {"id": name}))


def _details(spec: ModelSpec) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": "gguf",
        "family": spec.family,
        "families": [spec.family],
        "parameter_size": spec.parameter_size,
        "quantization_level": spec.quantization_level,
    }


def _tag(spec: ModelSpec) -> dict[str, Any]:
    lengths = {"context_length": spec.context_length, "embedding_length": spec.embedding_length}
    return {
        "name": spec.name,
        "model": spec.name,
        "modified_at": rfc3339(spec.modified_ns),
        "size": spec.size,
        "digest": spec.digest,
        "details": _details(spec) | lengths,
        "capabilities": list(spec.capabilities),
    }


def _loaded(world: World, runner: Runner) -> dict[str, Any]:
    spec, size = runner.spec, int(runner.spec.size * _RUNNER_SIZE)
    return {
        "name": spec.name,
        "model": spec.name,
        "size": size,
        "digest": spec.digest,
        "details": _details(spec),
        "expires_at": rfc3339(wall_ns() + int(_remaining_s(world, runner) * NS)),
        "size_vram": int(size * world.config.gpu_share),
        "context_length": runner.num_ctx,
    }


def _remaining_s(world: World, runner: Runner) -> float:
    if runner.keep_alive_s < 0:
        return FOREVER_S
    if runner.expires_at is None:
        return runner.keep_alive_s
    return max(0.0, runner.expires_at - world.now())


def _listed(spec: ModelSpec) -> dict[str, Any]:
    created = spec.modified_ns // NS
    return {"id": spec.name, "object": "model", "created": created, "owned_by": "library"}


# -- managing


async def show(world: World, exchange: Exchange, fields: Fields) -> None:
    name = _named(fields)
    if not name:
        raise ApiError(400, "model is required")
    await exchange.send(native(_shown(find(world.catalogue, name))))


def _named(fields: Fields) -> str:
    """Observed: `name` is taken for `model`, and `model` wins."""
    return str(fields.get("model") or fields.get("name") or "")


def _shown(spec: ModelSpec) -> dict[str, Any]:
    family = spec.family
    template = "{{- range .Messages }}<start_of_turn>{{ .Role }}\n{{ .Content }}\n{{- end }}"
    blocks = [
        {"name": f"blk.{index}.{part}.weight", "type": "Q4_K", "shape": [spec.embedding_length]}
        for index in range(36)
        for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down")
    ]
    info = {
        f"{family}.context_length": spec.context_length,
        f"{family}.embedding_length": spec.embedding_length,
        "general.architecture": family,
        "general.file_type": 15,
        "general.quantization_version": 2,
        "general.type": "model",
        "tokenizer.ggml.tokens": None,
    }
    return {
        "modelfile": f'# Modelfile generated by "ollama show"\nFROM {spec.name}\n',
        "parameters": 'stop                           "<end_of_turn>"',
        "template": template,
        "details": _details(spec),
        "model_info": info,
        "tensors": blocks,
        "capabilities": list(spec.capabilities),
        "modified_at": rfc3339(spec.modified_ns),
    }


async def copy(world: World, exchange: Exchange, fields: Fields) -> None:
    source = str(fields.get("source") or "")
    spec = world.catalogue.find(source)
    if spec is None:
        raise ApiError(404, f'model "{source}" not found')
    world.catalogue.alias(spec, str(fields.get("destination") or ""))
    await exchange.send(Reply(200))


async def delete(world: World, exchange: Exchange, fields: Fields) -> None:
    name = _named(fields)
    find(world.catalogue, name)
    world.catalogue.remove(name)
    await exchange.send(Reply(200))


async def pull(world: World, exchange: Exchange, fields: Fields) -> None:
    """Observed: a failure is an error line inside a 200."""
    name = _named(fields)
    lines: list[Any] = [{"status": "pulling manifest"}]
    if world.catalogue.find(name) is None:
        lines.append({"error": "pull model manifest: file does not exist"})
    else:
        lines += [{"status": "verifying sha256 digest"}, {"status": "success"}]
    await _lines(exchange, lines)


async def push(world: World, exchange: Exchange, fields: Fields) -> None:
    del world, fields
    lines = [{"status": "retrieving manifest"}, {"status": "couldn't retrieve manifest"}]
    await _lines(exchange, [*lines, {"error": "open manifest: no such file or directory"}])


async def create(world: World, exchange: Exchange, fields: Fields) -> None:
    if not fields.get("from") and not fields.get("files"):
        body = native({"error": "neither 'from' or 'files' was specified"}).body
        await exchange.send(Reply(400, (("Content-Type", JSON),), body, chunked=True))
        return
    world.catalogue.add(model(_named(fields)))
    await _lines(exchange, [{"status": "writing manifest"}, {"status": "success"}])


async def _lines(exchange: Exchange, lines: list[Any]) -> None:
    await exchange.begin((("Content-Type", NDJSON),))
    for line in lines:
        await exchange.chunk(native(line).body + b"\n")
    await exchange.end()


# -- blobs


async def blobs(world: World, exchange: Exchange, digest: str) -> None:
    """Observed: an existing blob is answered early, and a wrong one is kept by its true digest."""
    if _DIGEST.fullmatch(digest) is None:
        raise ApiError(400, "invalid digest format")
    exists = digest in world.blobs
    if exchange.request.method == "HEAD":
        if not exists:
            raise ApiError(404, f"blob {digest!r} not found by this stand-in")
        await exchange.send(Reply(200, bare=True))
        return
    if exists:
        await exchange.send(Reply(200))
        return
    await _store(world, exchange, digest)


async def _store(world: World, exchange: Exchange, digest: str) -> None:
    exchange.send_continue()
    seen = hashlib.sha256()
    while piece := await exchange.request.body.read():
        seen.update(piece)
    found = f"sha256:{seen.hexdigest()}"
    world.blobs.add(found)
    if found != digest:
        raise ApiError(400, f'digest mismatch, expected "{digest}", got "{found}"')
    await exchange.send(Reply(201))


# -- the table


def generating(read: Callable[[Reader, Fields], Ask], dialect: type[Dialect]) -> BodyHandler:
    """A handler from how an API is read and how it speaks."""

    async def handler(world: World, exchange: Exchange, fields: Fields) -> None:
        ask = read(Reader(world.config, world.catalogue), fields)
        await generate(world, exchange, ask, dialect(ask))

    return handler


async def transcribe(world: World, exchange: Exchange, fields: Fields) -> None:
    ask = Reader(world.config, world.catalogue).chat(as_chat(fields))
    await generate(world, exchange, ask, Transcription(ask))


PLAIN: dict[str, Handler] = {
    "/": root,
    "/api/version": version,
    "/api/status": status,
    "/api/tags": tags,
    "/api/ps": ps,
    "/v1/models": list_models,
    "/v1/models/*": one_model,
    "/api/blobs/*": blobs,
}
GENERATING: dict[str, tuple[Shape, BodyHandler]] = {
    "/api/generate": (asks.GENERATE, generating(Reader.generate, Native)),
    "/api/chat": (asks.CHAT, generating(Reader.chat, Native)),
    "/v1/chat/completions": (asks.OPENAI_CHAT, generating(Reader.openai_chat, OpenAIChat)),
    "/v1/completions": (
        asks.OPENAI_COMPLETION,
        generating(Reader.openai_completion, OpenAICompletion),
    ),
    "/v1/messages": (asks.ANTHROPIC, generating(Reader.anthropic, Anthropic)),
    "/v1/responses": (asks.OPENAI_RESPONSES, generating(Reader.responses, Responses)),
}
FORMS: dict[str, BodyHandler] = {"/v1/audio/transcriptions": transcribe}
WITH_BODY: dict[str, tuple[Shape, BodyHandler]] = {
    **GENERATING,
    "/api/embed": (asks.EMBED, embed),
    "/api/embeddings": (asks.EMBEDDINGS, embed),
    "/v1/embeddings": (asks.OPENAI_EMBED, embed),
    "/api/show": (asks.SHOW, show),
    "/api/pull": (asks.Shape("api.PullRequest", asks.SHOW.fields), pull),
    "/api/push": (asks.Shape("api.PushRequest", asks.SHOW.fields), push),
    "/api/create": (asks.Shape("api.CreateRequest", asks.SHOW.fields), create),
    "/api/copy": (asks.Shape("api.CopyRequest"), copy),
    "/api/delete": (asks.Shape("api.DeleteRequest", asks.SHOW.fields), delete),
}
