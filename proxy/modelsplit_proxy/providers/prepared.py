"""One client's request, made ready for a provider: the bytes to send and how to read the answer."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from modelsplit_proxy.protocol import tellable
from modelsplit_proxy.providers import failures
from modelsplit_proxy.providers.dialects import DIALECTS, ProviderDialect
from modelsplit_proxy.providers.messages import SilentWriter
from modelsplit_proxy.providers.question import UntranslatableError
from modelsplit_proxy.providers.translations import TRANSLATIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_policy.failures import Failure
    from modelsplit_proxy.protocol.endpoint import Endpoint
    from modelsplit_proxy.providers.answer import Writer
    from modelsplit_proxy.providers.failures import Named
    from modelsplit_proxy.providers.question import Question, Terms
    from modelsplit_proxy.providers.redaction import Redactor
    from modelsplit_proxy.runtime.clock import Clock


@dataclass(frozen=True, slots=True)
class Prepared:
    """``untranslated``: what of the client's is not in it.

    ``passes``: the provider's bytes are in the client's dialect already.
    ``redacted``: how often each pattern of the policy took something out.
    ``stream_type``: the content type of a stream in the client's dialect.
    """

    body: bytes
    streams: bool
    answers_by_tool: bool
    passes: bool
    untranslated: tuple[str, ...]
    writer: Writer
    stream_type: bytes
    redacted: dict[str, int]


@dataclass(frozen=True, slots=True)
class Preparing:
    """What is the same for every request to one model. ``name``: as clients are to read it."""

    name: str
    named: Named
    redactor: Redactor
    clock: Clock
    dialect: ProviderDialect = DIALECTS["anthropic"]


def prepare(endpoint: Endpoint, raw: bytes, terms: Terms, parts: Preparing) -> Prepared | Failure:
    """The request for the provider; a Failure where it cannot be put to it."""
    named, dialect = parts.named, parts.dialect
    translation = TRANSLATIONS.get(endpoint.label)
    if translation is None:
        routes = ", ".join(TRANSLATIONS)
        return failures.untranslatable(named, f"{endpoint.label} has no counterpart; use {routes}")
    fields = _decoded(raw)
    if fields is None:
        return failures.untranslatable(named, "the body is no plain JSON")
    try:
        question = translation.ask(fields, terms)
        question, redacted = _redacted(question, parts.redactor)
        body, untranslated = dialect.ask(question, terms)
        written = tellable.dumps(body)
    except UntranslatableError as error:
        return failures.untranslatable(named, str(error))
    except RecursionError:
        return failures.untranslatable(named, "the body is nested too deep")
    passes = dialect.passes and endpoint.label == dialect.path
    writer = SilentWriter() if passes else translation.writer(parts.name, parts.clock, fields)
    return Prepared(
        body=written,
        streams=question.body.get("stream") is True,
        answers_by_tool=question.answers_by_tool,
        passes=passes,
        untranslated=untranslated,
        writer=writer,
        stream_type=endpoint.wire.stream_type,
        redacted=redacted,
    )


def _redacted(question: Question, redactor: Redactor) -> tuple[Question, dict[str, int]]:
    """Without what the patterns find, also in what stands aside; how often each did."""
    aside = {name: value for name, (_, value) in question.aside.items()}
    body, found = redactor.redacted(question.body)
    cleared, beside = redactor.redacted(aside)
    kept = {name: (field, cleared[name]) for name, (field, _) in question.aside.items()}
    counts = dict(Counter(found) + Counter(beside))
    return question._replace(body=body, aside=kept), counts


def _decoded(raw: bytes) -> Mapping[str, Any] | None:
    try:
        fields = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return fields if isinstance(fields, dict) else None
