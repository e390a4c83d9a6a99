"""What a request body says about itself, and the one value we may change in it.

The body is read as Ollama's decoder reads it (`policy: go_json`). A body that names its
model twice, in whatever spelling, could borrow one model's budget and run another, and is
refused. The value is replaced in place: every other byte goes out as it came in.

A short body of plain JSON, which nearly all are, is decoded at once. Any other is looked
through in steps, as a generator, so that others can run between them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

import orjson

from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.go_json import (
    Fields,
    GoJsonError,
    NotAnObjectError,
    Scan,
    disguises,
    is_plain,
    mended,
)
from modelsplit_proxy.http.body import BodyError

if TYPE_CHECKING:
    from modelsplit_proxy.runtime.tasks import Steps

# A millisecond's work for the decoder, whatever is in it.
AT_ONCE_BYTES: Final = 64 * 1024

# Strings are matched possessively: every step that could be taken back is remembered.
_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_KEY_AND_VALUE: Final = re.compile(rb'"model"\s*:\s*(%b)' % _STRING)


class Body(NamedTuple):
    """An inference request's body: its bytes, its fields, where the model is.

    ``model`` is empty when the body names none. ``span`` is the byte range of the model's
    JSON string, quotes included; None when there is none. Not ``quoted``: the body is a
    form, where the name stands as it is (``form``).
    """

    raw: bytes
    fields: Fields
    model: str
    span: tuple[int, int] | None
    quoted: bool = True

    def with_model(self, model: str) -> bytes:
        """The same bytes naming ``model``; unchanged where they already do.

        A model that is absent or null is put in. One of another type is left for Ollama to
        refuse.
        """
        if model == self.model:
            return self.raw
        if self.span is None:
            is_free = self.quoted and self.fields.get("model") is None
            return self.fields.rewritten({"model": model}) if is_free else self.raw
        start, end = self.span
        written = orjson.dumps(model) if self.quoted else model.encode()
        return self.raw[:start] + written + self.raw[end:]


def read_at_once(raw: bytes) -> Body | None:
    """Decode ``raw`` if it is short and plain. None: it has to be read in steps."""
    try:
        plain = orjson.loads(raw) if len(raw) <= AT_ONCE_BYTES else None
    except orjson.JSONDecodeError:
        return None
    if not isinstance(plain, dict) or not is_plain(plain):
        return None
    if "model" not in plain:
        return Body(raw, Fields(raw, plain), "", None)
    if raw.count(b'"model"') != 1 or (b"\\u00" in raw and disguises(raw)):
        return None
    # The object has a top-level "model", and the bytes spell the word once: that is the one.
    model, match = plain["model"], _KEY_AND_VALUE.search(raw)
    if match is None or not isinstance(model, str):
        return Body(raw, Fields(raw, plain), "", None)
    return Body(raw, Fields(raw, plain), model, match.span(1))


def read_in_steps(raw: bytes) -> Steps[Body]:
    """Look through ``raw``; raise BodyError if it is not an object, or names two models."""
    try:
        scan = yield from scanned(raw)
    except NotAnObjectError as error:
        raise bad_json(str(error)) from None
    except GoJsonError as error:
        is_empty = not raw.strip()
        what = f"the body is not valid JSON: {error}"
        raise bad_json("the body is empty; send a JSON object" if is_empty else what) from None
    spans = [member[-2:] for member in scan.members if member.name == "model"]
    if len(spans) > 1:
        # Also where one is null, which Go passes over: a name before it would count.
        raise _ambiguous('the body names "model" more than once; send it once')
    fields = Fields(raw, {}, scan)
    model = fields.get("model")
    if not isinstance(model, str):
        return Body(raw, fields, "", None)
    return Body(raw, fields, mended(model), spans[0])


def scanned(raw: bytes) -> Steps[Scan]:
    """Where the fields of an object stand, found in steps; raise GoJsonError if it is none."""
    scan = Scan(raw)
    yield from scan.steps()
    return scan


def bad_json(what: str) -> BodyError:
    return BodyError(Failure(ErrorCode.BAD_REQUEST, Reason.BAD_JSON, what, "Bad JSON"))


def _ambiguous(what: str) -> BodyError:
    failure = Failure(ErrorCode.BAD_REQUEST, Reason.AMBIGUOUS_MODEL, what, "Ambiguous Model")
    return BodyError(failure)
