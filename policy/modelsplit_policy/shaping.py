"""What a request must not decide for everybody: context size, keep-alive, endless answers.

A different ``num_ctx`` makes Ollama load the model again, and ``keep_alive: -1`` keeps it
loaded for ever, whoever sends it. Where the policy chose the model, its pinned options go
with every call; the clamps of a role hold for every call of the role. `apply` returns the
fields to send otherwise and, in words, what was changed. Where nothing has to change it
returns None, and the client's own bytes go out.

A body is read here as Ollama reads it (`go_json`): the last of two spellings wins, and two
``options`` are merged; keys inside ``options`` count exactly. What Ollama will refuse
anyway, such as a ``num_ctx`` that is text, is left for Ollama to refuse.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from modelsplit_policy.model_names import canonical

if TYPE_CHECKING:
    from collections.abc import Iterable

    from modelsplit_policy.config.model import Policy, Scalar
    from modelsplit_policy.endpoints import EndpointFacts
    from modelsplit_policy.go_json import Fields
    from modelsplit_policy.vocabulary import Role

_OPTIONS: Final = "options"
_KEEP_ALIVE: Final = "keep_alive"

_SECOND_NS: Final = 1_000_000_000
_UNIT_NS: Final = MappingProxyType(
    {
        "ns": 1,
        "us": 1_000,
        "\u00b5s": 1_000,  # the micro sign
        "\u03bcs": 1_000,  # the Greek letter
        "ms": 1_000_000,
        "s": _SECOND_NS,
        "m": 60 * _SECOND_NS,
        "h": 3_600 * _SECOND_NS,
    }
)
_PART: Final = r"(?=\.?[0-9])([0-9]*)(?:\.([0-9]*))?(ns|us|\u00b5s|\u03bcs|ms|s|m|h)"
_ONE_PART: Final = re.compile(_PART)
# A number without a unit is what OLLAMA_KEEP_ALIVE takes, in seconds; 0 needs none.
_DURATION: Final = re.compile(rf"([+-]?)(?:(?P<parts>(?:{_PART})+)|(?P<plain>[0-9]+))")
# Go's durations end at 292 years; more digits than these can only be more than that.
_DIGITS: Final = 20


class Shape(NamedTuple):
    """The rules for one attempt. Empty and None: the client decides."""

    pinned: tuple[tuple[str, Scalar], ...] = ()
    max_num_ctx: int | None = None
    max_keep_alive: str | None = None
    num_predict: int | None = None
    max_num_predict: int | None = None

    @property
    def bounds_tokens(self) -> bool:
        return self.num_predict is not None or self.max_num_predict is not None

    @property
    def sets_options(self) -> bool:
        return bool(self.pinned) or self.max_num_ctx is not None or self.bounds_tokens


NOTHING: Final = Shape()


def shape_of(
    policy: Policy,
    role: Role,
    model: str,
    chosen_by_policy: bool,
    arm_options: Mapping[str, Scalar] = MappingProxyType({}),
) -> Shape:
    """The rules for an attempt of ``role`` on ``model``.

    The policy chose the model if the client named an alias, and for a fallback, an
    escalation and an experiment's arm; the arm's own options go over the model's.
    """
    row = policy.roles[role]
    pinned = {**_options_of(policy, model), **arm_options} if chosen_by_policy else {}
    return Shape(
        pinned=tuple(pinned.items()),
        max_num_ctx=row.max_num_ctx,
        max_keep_alive=row.max_keep_alive,
        num_predict=row.num_predict,
        max_num_predict=row.max_num_predict,
    )


def _options_of(policy: Policy, model: str) -> Mapping[str, Scalar]:
    name = canonical(model)
    rows = (row.options for key, row in policy.models.items() if canonical(key) == name)
    return next(rows, {})


def apply(
    shape: Shape, facts: EndpointFacts, fields: Fields
) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """The fields to send otherwise on the route of ``facts``, and in words, for the record.

    A field that comes more than once is sent once, as Ollama would have read it. None: send
    the client's bytes as they are.
    """
    names = () if shape == NOTHING else _names(shape, facts)
    if not names:
        return None, ()
    sent = {name: fields.all(name) for name in names}
    changes, words = (_native if facts.takes_options else _v1)(shape, facts, sent)
    if not changes:
        return None, ()
    twice = [name for name in names if name in changes and len(sent[name]) > 1]
    return changes, (*words, *(f"{name} sent twice" for name in twice))


def answer_bound(shape: Shape, facts: EndpointFacts, fields: Fields) -> int | None:
    """The most tokens an answer may have, by the request or the policy; None: nobody bounds it.

    Of several bounds that a request names the largest: which one Ollama reads may change.
    """
    named = [value for name in facts.bounds for value in fields.all(name)]
    options = merged_options(fields.all(_OPTIONS)) if facts.takes_options else None
    named.append(((options or {}) | dict(shape.pinned)).get("num_predict"))
    tokens = max((number for number in map(_number, named) if number is not None), default=None)
    bound = _bounded(shape, tokens)
    if bound is not None or tokens is None:
        return bound
    return int(tokens) if tokens >= 1 else None


def _names(shape: Shape, facts: EndpointFacts) -> tuple[str, ...]:
    """The top-level keys of a route that the rules look at; none if there are no rules."""
    if not facts.takes_options:
        return facts.bounds if shape.bounds_tokens else ()
    if shape.sets_options:
        content = facts.content
        return (_OPTIONS, _KEEP_ALIVE, content) if content else (_OPTIONS, _KEEP_ALIVE)
    return (_KEEP_ALIVE,) if shape.max_keep_alive is not None else ()


# --- Routes with Ollama's own options --------------------------------------------------------


def _native(
    shape: Shape, facts: EndpointFacts, sent: Mapping[str, list[Any]]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    changes: dict[str, Any] = {}
    words: tuple[str, ...] = ()
    options = merged_options(sent[_OPTIONS]) if shape.sets_options else None
    if options is not None:
        target = _options(shape, facts, options, sent)
        words = _changes(shape, options, target)
        if words or len(sent[_OPTIONS]) > 1:
            changes[_OPTIONS] = target
    if shape.max_keep_alive is None:
        return changes, words
    kept, word = _keep_alive(shape.max_keep_alive, sent[_KEEP_ALIVE])
    if word or len(sent[_KEEP_ALIVE]) > 1:
        changes[_KEEP_ALIVE] = kept
    return changes, (*words, word) if word else words


def merged_options(given: Iterable[Any]) -> dict[str, Any] | None:
    """Several ``options`` as Go makes them one; None if it refuses to."""
    merged: dict[str, Any] = {}
    for value in given:
        if value is None:
            merged = {}
        elif isinstance(value, Mapping):
            merged = {**merged, **value}
        else:
            return None
    return merged


def _options(
    shape: Shape, facts: EndpointFacts, options: Mapping[str, Any], sent: Mapping[str, list[Any]]
) -> dict[str, Any]:
    """The options to send."""
    content = facts.content
    answers = content is not None and any(sent[content])
    pins = content is None or answers or not unloads(sent[_KEEP_ALIVE])
    target = dict(options)
    for name, value in shape.pinned if pins else ():
        if not _same(target.get(name), value):
            target[name] = value
    context = _number(target.get("num_ctx"))
    if shape.max_num_ctx is not None and context is not None and context > shape.max_num_ctx:
        target["num_ctx"] = shape.max_num_ctx
    tokens = _number(target.get("num_predict"))
    unset = tokens is None and _is_unset(target.get("num_predict"))
    # A call that loads or unloads is given no bound, but one that it sends is cut.
    if content is not None and (tokens is not None or (unset and answers)):
        bound = _bounded(shape, tokens)
        if bound is not None:
            target["num_predict"] = bound
    return target


def _changes(shape: Shape, before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    """What became different, pins first."""
    pins = {name for name, _ in shape.pinned}
    changed = [name for name in after if not _same(before.get(name), after[name])]
    return (
        *(f"pinned {name} {_shown(after[name])}" for name in changed if name in pins),
        *(
            f"{name} {_shown(before.get(name))}->{_shown(after[name])}"
            for name in changed
            if name not in pins
        ),
    )


def _bounded(shape: Shape, tokens: float | None) -> int | None:
    """The bound that holds for what a client says (None: nothing); None: leave it.

    0 is no bound to Ollama, and negative numbers are none by intent.
    """
    given, most = shape.num_predict, shape.max_num_predict
    if given is not None and most is not None:
        given = min(given, most)
    if tokens is None:
        return given
    if math.trunc(tokens) == 0:
        return most if given is None else given
    return most if most is not None and (tokens < 0 or tokens > most) else None


# --- How long a model stays ----------------------------------------------------------------


def _keep_alive(most: str, given: list[Any]) -> tuple[Any, str]:
    """What to send, and the word for it; no word if that is what the client sent."""
    value = given[-1] if given else None
    length = _length_ns(value)
    if length is None or 0 <= length <= (_length_ns(most) or 0):
        return value, ""
    return most, f"{_KEEP_ALIVE} {_shown(value)}->{most}"


def unloads(given: list[Any]) -> bool:
    """Whether every ``keep_alive`` that was given is no time at all."""
    return bool(given) and all(_length_ns(value) == 0 for value in given)


def _length_ns(value: Any) -> int | None:
    """A keep_alive in nanoseconds, -1 for ever; None if it is unset or cannot be read."""
    if isinstance(value, str):
        return _text_ns(value)
    seconds = _number(value)
    if seconds is None:
        return None
    # The cut is far above any bound and far below where floats lose count.
    return -1 if seconds < 0 else int(min(seconds, 1e12) * _SECOND_NS)


def _text_ns(text: str) -> int | None:
    match = _DURATION.fullmatch(text)
    if match is None:
        return None
    if match["plain"]:
        length = _int(match["plain"]) * _SECOND_NS
    else:
        length = sum(_part_ns(*part.groups()) for part in _ONE_PART.finditer(match["parts"]))
    return -1 if match[1] == "-" and length else length


def _part_ns(whole: str, fraction: str | None, unit: str) -> int:
    decimals = (fraction or "")[:_DIGITS]
    scale: int = 10 ** len(decimals)
    return _int(whole) * _UNIT_NS[unit] + _int(decimals) * _UNIT_NS[unit] // scale


def _int(digits: str) -> int:
    """The number the digits spell, or a bigger one than any clamp if they are too many."""
    plain = digits.lstrip("0")
    return int(plain[: _DIGITS + 1] or "0")


# --- Routes without -------------------------------------------------------------------------


def _v1(
    shape: Shape, facts: EndpointFacts, sent: Mapping[str, list[Any]]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Only the number of tokens: these routes have no field for anything else.

    Where a positive bound is demanded, a request that has none is left for Ollama to refuse.
    """
    changes: dict[str, Any] = {}
    words: list[str] = []
    last = {name: _last(values) for name, values in sent.items()}
    for name, value in last.items():
        after = _v1_bound(shape, facts, last, name)
        if after is not None and not _same(value, after):
            changes[name] = after
            words.append(f"{name} {_shown(value)}->{_shown(after)}")
        elif len(sent[name]) > 1:
            changes[name] = value
    return changes, tuple(words)


def _last(values: Iterable[Any]) -> Any:
    """The last value that is one: to some of these fields null changes nothing."""
    return next((value for value in reversed([*values]) if value is not None), None)


def _v1_bound(shape: Shape, facts: EndpointFacts, last: Mapping[str, Any], name: str) -> int | None:
    value = last[name]
    if facts.needs_bound and (not _whole(value) or value <= 0):
        return None
    if _whole(value):
        return _bounded(shape, value)
    if value is not None or name != facts.bounds[0]:
        return None
    # The key Ollama reads is missing. A bound under the other name is meant all the same.
    others = [other for key, other in last.items() if key != name and _whole(other)]
    for other in others:
        meant = _bounded(shape, other) or int(other)
        if meant > 0:
            return meant
    return _bounded(shape, None)


def _whole(value: Any) -> bool:
    """Whether Go reads it into an int: 512.0 it does not, unlike inside ``options``."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


# --- Values --------------------------------------------------------------------------------


def _number(value: Any) -> float | None:
    """A JSON number as Go reads it into `any`, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _is_unset(value: Any) -> bool:
    """NaN and infinity, which only a lenient decoder lets in, are null once written."""
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def _same(left: Any, right: Any) -> bool:
    """Equal to Ollama: 8192 is 8192.0, but true is not 1."""
    alike = isinstance(left, bool) is isinstance(right, bool)
    return left is right or (alike and bool(left == right))


def _shown(value: Any) -> str:
    """A value in few characters."""
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return "true" if value else "false"
    number = _number(value)
    if number is not None:
        return f"{number:.15g}"
    return str(value)[:24]
