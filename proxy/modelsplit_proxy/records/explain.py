"""One call told in words: why this role, who was ahead, what was tried, how it ended.

It reads the object that ``GET /requests/{id}`` answers with, so a person with only that JSON
can have it told as well.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy.failures import NEVER_LEFT, said_back
from modelsplit_policy.tickets import Placed
from modelsplit_proxy.protocol import budget_text
from modelsplit_proxy.runtime import local_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Names come from clients and may hold anything; a line is for a terminal.
_LINE_MAX: Final = 400
_WHY_ROLE: Final = MappingProxyType(
    {
        "header": "its X-LLM-Role header says so",
        "alias": "that is what the model name stands for",
        "claim": "the policy claims the model for it",
        "default": "nothing else applied",
        "experiment": "an experiment chose the model",
        "fallback": "it began with the fallback",
        "escalation": "it escalated",
    }
)
_HOLDS: Final = MappingProxyType(
    {
        "role_cap": "all seats of its role were taken",
        "global_cap": "all local seats were taken",
        "reserved": "the free seats are reserved for other roles",
        "model_cap": "all seats of its model were taken",
        "parallelism": "as many calls ran as are known to be worth running at once",
        "turn": "it was not its turn",
        "away": "Ollama was away",
        "drained": "every host that may run it was drained",
        "mute": "Ollama hung, and with it the calls that had a seat",
    }
)
_NO_FALLBACK: Final = MappingProxyType(
    {
        "not_asked": "the call was refused before any model was asked",
        "client_gone": "the client had left",
        "begun": "the client already had part of the answer",
        "no_cause": "another model would have failed in the same way",
        "same_line": "another model would have stood in the same line",
        "drained": "no other model is asked because hosts are drained",
        "not_allowed": "no other model is asked where a budget or the policy says no",
        "not_wanted": "the client wanted none (X-LLM-No-Fallback)",
        "bound": "another model's answer would have been a wrong one",
        "none_left": "the call began with the fallback",
        "none": "the policy names none for this role",
        "no_seat": "the second model found no seat in time",
        "no_budget": "the second model's budget had no room for it",
        "breaker_open": "calls to the second model were stopped",
        "turned_away": "the second model would not serve such a request",
        "not_installed": "the second model is not installed",
        "incapable": "the second model lacks what the request needs",
    }
)
# Why a call went to one of several hosts.
_PLACED: Final = MappingProxyType(
    {
        Placed.ONLY: "where alone a seat was free",
        Placed.ROOM: "where it pushes no busy model out of memory",
        Placed.TIER: "whose tier is the lowest",
        Placed.LOADED: "which has the model loaded",
        Placed.FEWEST: "which has the fewest calls for its weight",
        Placed.PROMPT: "which has read the beginning of its prompt before",
        Placed.FIRST: "the first of those that are as good",
    }
)
# Fields that are told in a place of their own, or say nothing to a person.
_TOLD: Final = frozenset(
    {
        *("ts", "event", "request_id", "client", "route", "dialect", "started_at", "state"),
        *("llm_role", "llm_context", "llm_provider", "requested_model", "llm_model"),
        *("llm_attempt", "fallback_used", "fallback_cause", "route_reason", "status", "outcome"),
        *("llm_queue_wait_ms", "llm_latency_ms", "ttfb_ms", "call_e2e_latency_ms"),
        *("upstream_wait_ms",),
        *("planner_latency_ms", "load_ms", "prompt_tokens", "output_tokens"),
        *("error_code", "error_context", "error_provider", "reason", "error"),
        *("attempts", "candidates", "no_fallback", "unseated", "unable"),
        *("stream", "cost_usd", "tokens_estimated", "host"),
        *("budgets", "budget_refused"),
    }
)
_NAME: Final = 10
# What of a call's time is told by a line of its own where no other line does, in milliseconds.
_WORTH_TELLING_MS: Final = 10


def hold_in_words(hold: str) -> str:
    """Why a call waits."""
    return _HOLDS.get(hold, hold)


def text(call: Mapping[str, Any]) -> str:
    """The whole story, one fact a line."""
    return "".join(f"{said_back(line, _LINE_MAX)}\n" for line in lines(call))


def lines(call: Mapping[str, Any]) -> Iterator[str]:
    """Raises KeyError if ``call`` is not what ``/requests/{id}`` answers with."""
    yield _row("request", f"{call['request_id']} from {call['client'] or 'unknown'}")
    when = local_time.millisecond(call["started_at"])
    yield _row("when", f"{when}, {call['route']}{' (stream)' * bool(call['stream'])}")
    yield _row("outcome", _outcome(call))
    yield _row("role", _role(call))
    if "candidates" in call:
        yield _row("models", ", then ".join(call["candidates"]) or "-")
    yield from _attempts(call)
    yield ""
    yield from _fallback(call)
    yield from _rest(call)


def _row(name: str, text: str) -> str:
    return f"{name:{_NAME}} {text}"


def _outcome(call: Mapping[str, Any]) -> str:
    total = _s(call["call_e2e_latency_ms"])
    if call["outcome"] == "running":
        return f"still running ({call['state']}) after {total}"
    text = f"{call['outcome']}, status {call['status'] or '-'}, after {total}"
    if call["llm_queue_wait_ms"] >= 1:
        text += f", of which {_s(call['llm_queue_wait_ms'])} in line"
    if "error" in call:
        text += f"; {call['reason']}: {call['error']}"
    return text


def _role(call: Mapping[str, Any]) -> str:
    if call["llm_role"] is None:
        return "none: it was refused before a role was chosen"
    asked, used = call["requested_model"], call["llm_model"]
    why = _WHY_ROLE.get(call["route_reason"], call["route_reason"])
    text = f"{call['llm_role']} ({call['llm_provider']}), because {why}"
    return f"{text}; asked for {asked or '-'}, used {used or '-'}"


def _attempts(call: Mapping[str, Any]) -> Iterator[str]:
    """What was tried. Every moment of the call's time is before one of these lines."""
    tried = (*call["attempts"], *filter(None, [call.get("unseated")]))
    arrived = next((attempt.get("asked_ms") for attempt in tried), None) or 0.0
    if arrived >= _WORTH_TELLING_MS:
        yield ""
        yield _at(arrived, "the request had arrived and was let in")
    for attempt in call["attempts"]:
        yield ""
        yield from _attempt(attempt)
    if "unseated" in call:
        yield ""
        yield from _unseated(call["unseated"])
    ends = [attempt["ended_ms"] for attempt in tried if attempt.get("ended_ms") is not None]
    total = call["call_e2e_latency_ms"]
    if ends and call["outcome"] != "running" and total - max(ends) >= _WORTH_TELLING_MS:
        yield ""
        yield _at(total, "its client had the answer")


def _attempt(attempt: Mapping[str, Any]) -> Iterator[str]:
    where = f" at {attempt['host']}" if "host" in attempt else ""
    why = _PLACED.get(attempt.get("placed", ""))
    because = f", {why}" if where and why else ""
    yield _row(f"attempt {attempt['number']}", f"{attempt['model']}{where}{because}")
    yield from _queue(attempt)
    if attempt["dispatched_ms"] is not None:
        trial = ", as the trial of an open breaker" * bool(attempt.get("trial"))
        what = "connecting to" if attempt["reason"] in NEVER_LEFT else "sent to"
        yield _at(attempt["dispatched_ms"], f"{what} the upstream{trial}")
    if attempt["first_ms"] is not None:
        yield _at(attempt["first_ms"], f"it began to answer, status {attempt['upstream_status']}")
    if attempt["ended_ms"] is not None:
        yield _at(attempt["ended_ms"], _end(attempt))


def _queue(attempt: Mapping[str, Any]) -> Iterator[str]:
    """From asking for a seat to having it, or not."""
    asked, seated = attempt["asked_ms"], attempt["seated_ms"]
    crowd = attempt.get("crowd")
    if crowd is not None:
        yield _at(asked, f"found no seat: {_hold(crowd)}; {attempt['ahead']} of its role ahead")
        yield from _who(crowd, is_in_line=_stood_in_line(attempt))
    returned = attempt.get("returned_ms", ())
    for moment in returned:
        until = "for another host" if "host" in attempt else "until Ollama is there"
        yield _at(moment, f"had a seat, but nobody listened: back in line {until}")
    # What the limits and the Health Guard said is of the moment in which it was let in, or not.
    let_in = attempt["ended_ms"] if seated is None else seated
    if attempt.get("health") and let_in is not None:
        yield _at(let_in, f"health was {attempt['health']}")
    if seated is not None:
        waits = crowd is not None or returned
        waited = f"got a seat after {_s(seated - asked)} in line" if waits else "got a seat at once"
        if attempt.get("gone_ms"):
            waited += f", for {_s(attempt['gone_ms'])} of which Ollama did not answer"
        yield _at(seated, f"{waited}{_limits(attempt['seats'])}")
    else:
        yield from _left(attempt)


def _left(attempt: Mapping[str, Any]) -> Iterator[str]:
    """It stood in line for nothing."""
    end = attempt.get("crowd_at_end") or attempt.get("crowd")
    ended = attempt.get("ended_ms")
    if end is None or ended is None:
        return
    yield _at(ended, f"left the line without a seat: {_hold(end)}")
    if "crowd_at_end" in attempt:
        yield from _who(end)


def _hold(crowd: Mapping[str, Any]) -> str:
    return f"{_HOLDS.get(crowd['hold'], crowd['hold'])} ({crowd['hold']})"


def _stood_in_line(attempt: Mapping[str, Any]) -> bool:
    """Whether it waited for its seat; else it was turned away at once."""
    was_let_in = attempt.get("seated_ms") is not None or attempt.get("ended_ms") is None
    return was_let_in or "crowd_at_end" in attempt


def _who(crowd: Mapping[str, Any], *, is_in_line: bool = False) -> Iterator[str]:
    """Who ran and who waited; where the call ``is_in_line`` it is one of them."""
    models = f" ({_counts(crowd['models'])})" if crowd["models"] else ""
    yield f"{'':{_NAME}} {'':10}  ran: {_counts(crowd['running'])}{models}"
    if crowd["waiting"]:
        waiting = f"{_counts(crowd['waiting'])} (of its role: {_counts(crowd['line'])})"
        own = ", this call among them" * is_in_line
        yield f"{'':{_NAME}} {'':10}  waited: {waiting}{own}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "nobody"


def _limits(seats: Mapping[str, Any] | None) -> str:
    if seats is None:
        return ""
    parts = [f"{name} {_pool(seats[name])}" for name in ("role", "local", "model")]
    return f"; limits then: {', '.join(parts)}, {seats['useful']} at once worth running"


def _pool(pool: Mapping[str, Any]) -> str:
    return f"{pool['running']}/{'-' if pool['cap'] is None else pool['cap']}"


def _end(attempt: Mapping[str, Any]) -> str:
    parts = ["ended well" if attempt["outcome"] == "ok" else f"ended: {attempt['outcome']}"]
    if attempt["reason"]:
        parts[0] += f" {attempt['reason']}"
    if attempt.get("error"):
        parts.append(attempt["error"])
    tokens = attempt["prompt_tokens"], attempt["output_tokens"]
    if tokens != (None, None):
        parts.append(f"tokens {_or(tokens[0])} in, {_or(tokens[1])} out")
    times = (("load", "load_ms"), ("prompt", "prompt_ms"), ("answer", "eval_ms"))
    known = [f"{name} {_s(attempt[key])}" for name, key in times if attempt[key] is not None]
    if (attempt["upstream_wait_ms"] or 0) >= 1:
        known.append(f"waiting inside Ollama {_s(attempt['upstream_wait_ms'])}")
    if known:
        parts.append(f"of its time {', '.join(known)}")
    return "; ".join(parts)


def _unseated(attempt: Mapping[str, Any]) -> Iterator[str]:
    status = attempt.get("upstream_status")
    came_of_it = "was not sent" if status is None else f"was turned away with status {status}"
    yield _row("unseated", f"{attempt['model']}: {came_of_it}, so it does not count")
    if "asked_ms" not in attempt:  # as it was kept at first, without its moments
        yield from _untimed(attempt)
        return
    if "crowd" in attempt:
        yield _at(attempt["asked_ms"], f"found no seat: {_hold(attempt['crowd'])}")
        yield from _who(attempt["crowd"], is_in_line=_stood_in_line(attempt))
    for moment in attempt.get("returned_ms", ()):
        yield _at(moment, "had a seat, but nobody listened: back in line until Ollama is there")
    if "seated_ms" in attempt:
        yield _at(attempt["seated_ms"], "got a seat")
    else:
        yield from _left(attempt)
    if "error" in attempt and "ended_ms" in attempt:
        yield _at(attempt["ended_ms"], f"ended: {attempt['error']}")


def _untimed(attempt: Mapping[str, Any]) -> Iterator[str]:
    if "error" in attempt:
        yield f"{'':{_NAME}} {'':10}  {attempt['error']}"
    for key in ("crowd", "crowd_at_end"):
        if key in attempt:
            yield f"{'':{_NAME}} {'':10}  {_hold(attempt[key])}"
            yield from _who(attempt[key])


def _fallback(call: Mapping[str, Any]) -> Iterator[str]:
    if call["fallback_cause"] is not None:
        yield _row("fallback", f"yes: the first attempt ended with {call['fallback_cause']}")
    elif "no_fallback" in call:
        why = call["no_fallback"]
        yield _row("fallback", f"no: {_NO_FALLBACK.get(why, why)} ({why}){_lacking(call)}")
    elif call["fallback_used"]:
        yield _row("fallback", "yes: the call began with it")
    elif call["outcome"] == "ok":
        yield _row("fallback", "no: the first attempt answered")


def _lacking(call: Mapping[str, Any]) -> str:
    unable = call.get("unable")
    if unable is None:
        return ""
    return f"; {unable['model']}" + f" has no {', '.join(unable['lacks'])}" * bool(unable["lacks"])


def _rest(call: Mapping[str, Any]) -> Iterator[str]:
    if call.get("tokens_estimated"):
        yield _row("tokens", "counted as they came: the upstream did not say how many")
    if call.get("cost_usd") is not None:
        yield _row("cost", f"{call['cost_usd']:.6f} USD (estimate)")
    for budget in call.get("budgets", ()):
        refused = budget["name"] == call.get("budget_refused")
        yield _row("budget", f"{budget_text.line(budget)}{'; refused the call' * refused}")
    for name, value in call.items():
        if name not in _TOLD and value not in (None, False, [], ()):
            listed = isinstance(value, (list, tuple))
            yield _row(name, ", ".join(map(str, value)) if listed else str(value))


def _at(moment_ms: float, text: str) -> str:
    return f"{'':{_NAME}} {moment_ms / 1000:8.3f} s  {text}"


def _s(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.3f} s"


def _or(value: int | None) -> str:
    return "?" if value is None else str(value)
