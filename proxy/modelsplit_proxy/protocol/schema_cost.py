"""How much work can a client's schema make of an answer? A bound, before any answer is there.

A validator holds the interpreter while it works, so no thread and no timeout saves the event
loop from a schema that doubles at every step: thirty short definitions that each name the
next one twice would stop the process for good. What is counted is how often subschemas are
applied: ``allOf``, ``$ref`` and their like apply more of them to the same value, others to the
values below. Of ``properties``, ``items`` and their like only one applies to any one of those,
so the dearest counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import orjson

from modelsplit_proxy.protocol.format_finding import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Costs above this are all alike: too much.
TOO_DEAR: Final = 1 << 32

_MAX_LEVELS: Final = 64
_MAX_ROUNDS_TIMES_NODES: Final = 40_000
# A pattern costs its compilation once (half a millisecond) and every value a search.
_MAX_PATTERNS: Final = 64
_PATTERN_WEIGHT: Final = 10
_BYTES_PER_COMPARISON: Final = 8

# Keywords whose cost is not a matter of counting (``unevaluated…`` doubles with every level of
# nesting in the validator), or whose target depends on where evaluation came from, or
# that give the references inside them another base.
_REFUSED: Final = ("unevaluatedProperties", "unevaluatedItems", "$dynamicRef", "$recursiveRef")
_MAPS: Final = frozenset({"properties", "patternProperties", "dependentSchemas", "dependencies"})
_HERE: Final = frozenset(
    {"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies"}
)
_BELOW: Final = frozenset({"patternProperties", "contains", "propertyNames"})
_ONE_OF_BELOW: Final = frozenset(
    {"properties", "additionalProperties", "items", "prefixItems", "additionalItems"}
)


@dataclass(slots=True)
class _Node:
    """One subschema, by the ids of those it applies: to the same value, to those below."""

    weight: int
    here: list[int] = field(default_factory=list)
    below: list[int] = field(default_factory=list)
    one_of_below: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class SchemaCosts:
    """``by_depth[n]``: steps per value, at most, in a value with ``n`` levels of containers.

    ``any_depth``: values nested deeper than the list is long cost what its last entry says.
    """

    by_depth: tuple[int, ...]
    any_depth: bool

    @property
    def at_most(self) -> int:
        return self.by_depth[-1] if self.any_depth else TOO_DEAR

    def of(self, depth: int) -> int:
        return self.by_depth[depth] if depth < len(self.by_depth) else self.at_most


def costs_of(schema: dict[str, Any], raw: bytes) -> SchemaCosts:
    """What ``schema``, whose compact JSON is ``raw``, may cost. Raises RefusedError."""
    _refuse_words(schema, raw)
    nodes = _read(schema)
    try:
        order = list(TopologicalSorter({key: nodes[key].here for key in nodes}).static_order())
    except CycleError:
        raise RefusedError("the schema refers to itself without end") from None
    return _grow(nodes, order, id(schema))


def _refuse_words(schema: dict[str, Any], raw: bytes) -> None:
    for word in _REFUSED:
        if b'"%b":' % word.encode() in raw:
            raise RefusedError(f"the schema uses {word}")
    named = raw.count(b'"$id":') > ("$id" in schema)
    if named or ("draft-04" in str(schema.get("$schema")) and b'"id":"' in raw):
        raise RefusedError("the schema names its parts with $id")


def _read(root: dict[str, Any]) -> dict[int, _Node]:
    """Every subschema that evaluation can reach, by the id of its dict."""
    nodes: dict[int, _Node] = {}
    waiting = [root]
    patterns = 0
    while waiting:
        schema = waiting.pop()
        if id(schema) in nodes:
            continue
        node = nodes[id(schema)] = _Node(_weight(schema))
        patterns += _patterns(schema)
        if patterns > _MAX_PATTERNS:
            raise RefusedError(f"the schema has more than {_MAX_PATTERNS} patterns")
        for edges, child in _edges(node, schema, root):
            edges.append(id(child))
            waiting.append(child)
    return nodes


def _edges(
    node: _Node, schema: dict[str, Any], root: dict[str, Any]
) -> Iterator[tuple[list[int], dict[str, Any]]]:
    for key, value in schema.items():
        if key == "$ref":
            edges, children = node.here, _target(value, root)
        elif key in _HERE:
            edges, children = node.here, _schemas(key, value)
        elif key in _BELOW:
            edges, children = node.below, _schemas(key, value)
        elif key in _ONE_OF_BELOW:
            edges, children = node.one_of_below, _schemas(key, value)
        else:
            continue
        for child in children:
            yield edges, child


def _schemas(key: str, value: Any) -> Iterable[dict[str, Any]]:
    """The schemas that a keyword holds; ``true`` and ``false`` cost nothing."""
    if key in _MAPS and isinstance(value, dict):
        value = list(value.values())
    values = value if isinstance(value, list) else [value]
    return [schema for schema in values if isinstance(schema, dict)]


def _target(reference: Any, root: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """What a ``#/…`` pointer leads to. Nothing else is followed, here or by the validator."""
    if reference == "#":
        return [root]
    if not isinstance(reference, str) or not reference.startswith("#/"):
        raise RefusedError("the schema refers to another document, or by an anchor")
    target: Any = root
    for part in unquote(reference[2:]).split("/"):
        target = _step(target, part.replace("~1", "/").replace("~0", "~"))
    return [target] if isinstance(target, dict) else []


def _step(holder: Any, part: str) -> Any:
    if isinstance(holder, dict) and part in holder:
        return holder[part]
    if isinstance(holder, list) and part.isdecimal() and int(part) < len(holder):
        return holder[int(part)]
    raise RefusedError("the schema refers to a part that it does not have")


def _patterns(schema: dict[str, Any]) -> int:
    more = schema.get("patternProperties")
    return ("pattern" in schema) + (len(more) if isinstance(more, dict) else 0)


def _weight(schema: dict[str, Any]) -> int:
    """Steps that one application takes by itself."""
    required = schema.get("required")
    searches = _patterns(schema) + ("uniqueItems" in schema)
    options = schema.get("enum")
    compared = [*(options if isinstance(options, list) else []), schema.get("const")]
    # Strings and numbers are looked up at once; objects and arrays are compared one by one.
    size = sum(len(orjson.dumps(value)) for value in compared if isinstance(value, dict | list))
    return (
        1
        + (len(required) if isinstance(required, list) else 0)
        + _PATTERN_WEIGHT * searches
        + size // _BYTES_PER_COMPARISON
    )


def _grow(nodes: dict[int, _Node], order: list[int], root: int) -> SchemaCosts:
    """Costs for one more level of nesting at a time, until a level adds nothing."""
    levels = max(1, min(_MAX_LEVELS, _MAX_ROUNDS_TIMES_NODES // len(nodes)))
    before: dict[int, int] = dict.fromkeys(nodes, 0)
    costs: list[int] = []
    while len(costs) < levels:
        now: dict[int, int] = {}
        for key in order:
            now[key] = _cost(nodes[key], now, before)
        if now == before:
            return SchemaCosts(tuple(costs), any_depth=True)
        costs.append(now[root])
        before = now
    return SchemaCosts(tuple(costs), any_depth=False)


def _cost(node: _Node, here: dict[int, int], below: dict[int, int]) -> int:
    cost = node.weight + sum([here[key] for key in node.here])
    cost += sum([below[key] for key in node.below])
    cost += max([below[key] for key in node.one_of_below], default=0)
    return min(cost, TOO_DEAR)
