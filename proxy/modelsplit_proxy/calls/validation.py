"""Holding one call's answer to the form that its request asked for.

Only for roles that say ``validate``, and only where the request carries a schema or asks
for JSON. What was found is in the record: ``valid``, ``invalid``, or why that cannot be said.

An answer that was cut where the request, or the policy, bounds its length says nothing of its
model: another one would be cut there too. One that ran until its context was full has simply
not fitted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_proxy.protocol import answer_format, answer_text

if TYPE_CHECKING:
    from modelsplit_policy.go_json import Fields
    from modelsplit_proxy.protocol.answer_format import Wanted
    from modelsplit_proxy.protocol.endpoint import Endpoint
    from modelsplit_proxy.records.record import CallRecord


class Validation:
    """The check of one attempt's answer.

    ``bound``: the most tokens that the request or the policy lets it have; None: nobody does.
    """

    def __init__(self, record: CallRecord, model: str, fields: Fields) -> None:
        self._record = record
        self._model = model
        self.bound: int | None = None
        self._wanted = _wanted(record.endpoint, fields)
        if self._wanted is not None and self._wanted.unchecked is not None:
            record.schema = f"unchecked: {self._wanted.unchecked}"

    @property
    def wanted(self) -> bool:
        """True if there is a form to hold an answer to."""
        return self._wanted is not None and self._wanted.unchecked is None

    def whole(self, body: bytes) -> Failure | None:
        """Check an answer that came whole."""
        texts = self._record.endpoint.texts
        text = None if texts is None else answer_text.text_of_whole(texts, body)
        return self._check(text, body, whole=True)

    def stream(self, pieces: bytes) -> Failure | None:
        """Check all the bytes of a stream."""
        row = self._record.endpoint
        text = None
        if row.texts is not None:
            text = answer_text.text_of_stream(row.texts, row.wire, pieces)
        return self._check(text, pieces, whole=False)

    def _check(self, text: str | None, answer: bytes, *, whole: bool) -> Failure | None:
        if self._wanted is None or not self.wanted:
            return None
        if text is None:
            self._record.schema = "unchecked: the answer holds no text"
            return None
        finding = answer_format.judge(self._wanted, text)
        if finding.unchecked is not None:
            self._record.schema = f"unchecked: {finding.unchecked}"
            return None
        if finding.problem is None:
            self._record.schema = "valid"
            return None
        tokens = self._record.usage.output_tokens
        if self._reached(tokens) or self._says_so(answer, whole=whole):
            return self._cut(tokens)
        self._record.schema = "invalid"
        return Failure(
            ErrorCode.SCHEMA_INVALID,
            Reason.SCHEMA,
            f"{self._model[:60]}'s answer does not fit the schema: {finding.problem}"[:200],
            "Schema Invalid",
        )

    def _reached(self, tokens: int | None) -> bool:
        return self.bound is not None and tokens is not None and tokens >= self.bound

    def _says_so(self, answer: bytes, *, whole: bool) -> bool:
        wire = self._record.endpoint.wire
        return self.bound is not None and answer_text.was_cut(wire, answer, whole=whole)

    def _cut(self, tokens: int | None) -> Failure:
        at = self.bound if tokens is None else tokens
        self._record.schema = f"unchecked: the answer was cut at {at} tokens"
        text = (
            f"{self._model[:60]}'s answer was cut at {at} tokens, before it fitted the schema: it "
            "may have no more; raise num_predict or max_tokens"
        )
        return Failure(ErrorCode.SCHEMA_INVALID, Reason.CUT, text[:200], "Answer Cut", retry=False)


def _wanted(endpoint: Endpoint, fields: Fields) -> Wanted | None:
    return None if endpoint.wanted_format is None else endpoint.wanted_format(fields)
