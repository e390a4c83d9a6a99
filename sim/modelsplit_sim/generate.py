"""A generation from its turn in the queue to its last byte."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import text
from .clock import NS
from .dialects import Dialect, Result
from .errors import BUSY, DIED, ApiError
from .faults import Fault, Kind
from .reply import Reply
from .scheduler import Job, QueueFullError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .ask import Ask
    from .exchange import Exchange
    from .world import World

_UNSUPPORTED_IMAGES = (
    '{"error":{"code":400,"message":"Multimodal data provided, but model does not support '
    'multimodal requests.","type":"invalid_request_error"}}'
)
# Observed: a model that repeats one token more than 30 times is cut off.
_REPEATS = 31


@dataclass(slots=True)
class Run:
    """One generation under way."""

    world: World
    exchange: Exchange
    ask: Ask
    dialect: Dialect
    job: Job
    fault: Fault | None

    @property
    def streams(self) -> bool:
        return self.ask.stream


async def generate(world: World, exchange: Exchange, ask: Ask, dialect: Dialect) -> None:
    """Answer one request that names a model; raises ApiError for refusals."""
    if ask.empty and ask.keep_alive_s == 0:
        world.scheduler.unload(ask.spec.key)
        await _whole(exchange, dialect, Result("unload"))
        return
    fault = exchange.call_fault
    job = Job(ask.spec, ask.num_ctx, ask.keep_alive_s, needs_slot=not ask.empty)
    if fault is not None and fault.kind is Kind.SLOW_LOAD:
        job.extra_load_s = fault.seconds
    arrived = world.now()
    try:
        await take_turn(world, exchange, ask, job)
        if ask.empty:
            await _whole(exchange, dialect, Result("load"))
            return
        await _run(Run(world, exchange, ask, dialect, job, fault), arrived)
    finally:
        world.leave(exchange, job)


async def take_turn(world: World, exchange: Exchange, ask: Ask, job: Job) -> None:
    """Wait for a slot. Raises ApiError 503 when the queue of loads is full."""
    try:
        await world.turn(exchange.call, job)
    except QueueFullError as error:
        # Observed: a refused /v1/messages stream keeps this header.
        if ask.stream and exchange.request.path == "/v1/messages":
            exchange.extra_headers += (("Cache-Control", "no-cache"),)
        raise ApiError(503, BUSY) from error


async def _whole(exchange: Exchange, dialect: Dialect, result: Result) -> None:
    await exchange.send(Reply(200, dialect.whole_headers, dialect.whole(result)))


async def _run(run: Run, arrived: float) -> None:
    """Prefill, tokens, end.

    The load is over when the runner is there; waiting for one of its slots counts only into
    the total.
    """
    ready = arrived if run.job.ready_at is None else run.job.ready_at
    result = Result(prompt_tokens=run.ask.prompt_tokens, load_ns=int((ready - arrived) * NS))
    pieces, natural = _answer(run)
    began = run.world.now()
    await asyncio.sleep(run.world.config.prefill_ms * run.ask.prompt_tokens / 1000)
    result.prefill_ns = int((run.world.now() - began) * NS)
    run.exchange.tail = run.dialect.left
    started = run.world.now()
    produced = await _produce(run, pieces)
    result.eval_ns = int((run.world.now() - started) * NS)
    result.total_ns = int((run.world.now() - arrived) * NS)
    result.tokens, result.text = len(produced), "".join(produced)
    cut = run.fault is not None and run.fault.kind is Kind.REPEAT_CUTOFF
    if not cut:
        whole_call = run.ask.call is not None
        short = whole_call or run.ask.limit is None or len(produced) < run.ask.limit
        result.reason = "stop" if natural and short else "length"
    await _finish(run, result)


async def _finish(run: Run, result: Result) -> None:
    if not run.streams:
        if not result.reason:
            result = Result(text=result.text)
        await _whole(run.exchange, run.dialect, result)
        return
    if not run.exchange.streaming:
        await _open(run)
    if result.reason:
        call = run.ask.call
        called = [] if call is None else run.dialect.called(call)
        for piece in (*called, *run.dialect.closing(result)):
            await run.exchange.chunk(piece)
    await run.exchange.end()


async def _open(run: Run) -> None:
    """Observed: the head goes out with the first token, not before."""
    await run.exchange.begin(run.dialect.stream_headers)
    for piece in run.dialect.opening():
        await run.exchange.chunk(piece)


async def _produce(run: Run, pieces: Iterable[str]) -> list[str]:
    """Emit the tokens at their pace; faults of a stream strike in between."""
    pace = run.world.compute.pace(run.world.config.rate(run.ask.spec))
    strike = run.fault.after if run.fault is not None and run.fault.kind in _STRIKES else -1
    produced: list[str] = []
    counts = run.world.journal.counts
    pace.start()
    try:
        for piece in pieces:
            if len(produced) == strike:
                await _strike(run, produced)
            await pace.next()
            if run.job.runner is not None and run.job.runner.dead:
                await _die(run)
            produced.append(piece)
            await _emit(run, piece)
            run.exchange.call.tokens += 1
            counts.tokens += 1
            run.world.journal.changed()
    finally:
        pace.stop()
    if strike >= len(produced):
        await _strike(run, produced)
    return produced


async def _emit(run: Run, piece: str) -> None:
    if not run.streams:
        return
    if not run.exchange.streaming:
        await _open(run)
    if run.ask.call is None:
        await run.exchange.chunk(run.dialect.token(piece))


_STRIKES = frozenset(
    {
        Kind.CUT_CLEAN,
        Kind.CUT_FIN,
        Kind.CUT_RST,
        Kind.STALL,
        Kind.ERROR_LINE,
        Kind.RUNNER_DIES,
    }
)


async def _strike(run: Run, produced: list[str]) -> None:
    """Do what the fault says; returns never, except by raising."""
    assert run.fault is not None
    kind = run.fault.kind
    if kind is Kind.STALL:
        await asyncio.get_running_loop().create_future()
    if kind is Kind.RUNNER_DIES and run.job.runner is not None:
        run.world.scheduler.crash(run.job.runner)
    if kind in (Kind.RUNNER_DIES, Kind.ERROR_LINE):
        await _die(run)
    if not run.streams:
        await _begin_half(run, produced)
    if kind is Kind.CUT_CLEAN:
        await run.exchange.end()
        raise run.exchange.ended()
    raise run.exchange.drop(reset=kind is Kind.CUT_RST)


async def _begin_half(run: Run, produced: list[str]) -> None:
    """A non-streamed answer to be cut: half of its bytes, in chunks so that a clean end is one."""
    whole = run.dialect.whole(Result(text="".join(produced)))
    await run.exchange.begin(run.dialect.whole_headers)
    await run.exchange.chunk(whole[: len(whole) // 2])


async def _die(run: Run) -> None:
    """Observed: status 200 and a clean end mid-stream; 500 when nothing was sent yet."""
    if not run.exchange.streaming:
        raise ApiError(500, DIED)
    await run.exchange.chunk(run.dialect.died())
    await run.exchange.end()
    raise run.exchange.ended()


def _answer(run: Run) -> tuple[Iterable[str], bool]:
    """The tokens, cut at the limit, and whether the text ends by itself."""
    ask, fault = run.ask, run.fault
    if fault is not None and fault.kind is Kind.REPEAT_CUTOFF:
        return itertools.repeat(" again", _REPEATS), False
    if fault is not None and fault.kind is Kind.BAD_SCHEMA:
        return _limited(text.split(fault.text), ask.limit), True
    if ask.pictures and "vision" not in ask.spec.capabilities:
        raise ApiError(400, _UNSUPPORTED_IMAGES)
    if ask.call is not None:
        return text.split(ask.call.json), True
    if ask.form is not None:
        return _limited(_formed(ask), ask.limit), True
    if ask.spec.answer:
        return _limited(text.split(ask.spec.answer), ask.limit), True
    length = run.world.config.length(ask.spec) if ask.limit is None else ask.limit
    return itertools.islice(text.babble(ask.prompt), length), ask.limit is None


def _limited(pieces: list[str], limit: int | None) -> list[str]:
    return pieces if limit is None else pieces[:limit]


def _formed(ask: Ask) -> list[str]:
    """JSON tokens, or the refusals observed for formats nobody can meet."""
    if ask.form != "json" and not isinstance(ask.form, dict):
        shown = text.quoted(text.quoted(ask.form) if isinstance(ask.form, str) else str(ask.form))
        message = f'invalid format: {shown}; expected "json" or a valid JSON Schema object'
        raise ApiError(500, message, streamed=ask.stream)
    try:
        return text.split(text.json_text(ask.form))
    except text.SchemaError as error:
        raise ApiError(400, _schema_refusal(error.args[0]), streamed=ask.stream) from error


def _schema_refusal(schema: Any) -> str:
    """Observed: the runner's own JSON error inside the string."""
    reason = f"JSON schema conversion failed:\nUnrecognized schema: {text.compact(schema)}"
    message = f"Field 'json_schema': \"json_schema\": {reason}"
    inner = {"code": 400, "message": message, "type": "invalid_request_error"}
    return text.compact({"error": inner})
