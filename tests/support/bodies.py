"""Request bodies as the proxy reads them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from modelsplit_policy.go_json import Fields
from modelsplit_proxy.protocol.json_body import read_at_once, read_in_steps

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_proxy.protocol.json_body import Body
    from modelsplit_proxy.runtime.tasks import Steps

T = TypeVar("T")


def fields_of(body: Mapping[str, Any] | bytes) -> Fields:
    """The fields of a body, as a short one is read."""
    if isinstance(body, bytes):
        return Fields(body, orjson.loads(body))
    return Fields(json.dumps(dict(body)).encode(), dict(body))


def read_body(raw: bytes) -> Body:
    """A body, read the way that its bytes ask for."""
    return read_at_once(raw) or at_once(read_in_steps(raw))


def at_once(steps: Steps[T]) -> T:
    """The result of work in steps, without a turn for anybody between them."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
