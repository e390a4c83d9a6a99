"""What one inference route is: the shape of a row of the table in ``endpoints``.

Everything that differs from route to route is in its row, and everything that differs from
dialect to dialect in the row's wire format. Whoever serves a call looks its row up once and
then asks the row; nobody compares paths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelsplit_policy.endpoints import NO_FACTS

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterable, Mapping

    from modelsplit_policy.capabilities import Capability
    from modelsplit_policy.endpoints import EndpointFacts
    from modelsplit_policy.failures import Failure
    from modelsplit_policy.go_json import Fields
    from modelsplit_policy.vocabulary import Dialect
    from modelsplit_proxy.protocol.answer_format import Wanted
    from modelsplit_proxy.protocol.error_body import Scene
    from modelsplit_proxy.protocol.held_answer import HeldAnswer
    from modelsplit_proxy.protocol.json_body import Body
    from modelsplit_proxy.protocol.stream_end import LineKind, StreamVerdict, Tail, Usage


@dataclass(frozen=True, slots=True)
class WireFormat:
    """How a dialect writes its streams and tells its errors.

    Streams:
    ``stream_type`` is their content type. ``judge`` says of a stream's tail whether it was
    whole. ``data`` takes one line and gives the JSON text in it, None for a line that has none.
    ``kind`` says of the object in a line which line of the stream it is. ``usage`` reads what
    an object says of tokens and times. ``at_limit`` says whether an object, of a stream or
    whole, tells of an answer that was cut at a limit of its length. ``end_mark`` is found in
    every line whose kind matters, in at most 64 bytes, and in no line of mere text.
    ``as_last_line`` makes a whole answer the last line of a stream that has begun; None: it
    cannot be one. ``ping`` is what may stand between two events and means nothing; None: there
    is no such thing.

    Errors:
    ``error_body`` and ``error_in_stream`` write a failure as a whole answer and inside a
    stream.
    """

    dialect: Dialect
    stream_type: bytes
    judge: Callable[[Tail], StreamVerdict]
    data: Callable[[bytes], bytes | None]
    kind: Callable[[Mapping[str, Any]], LineKind]
    usage: Callable[[Mapping[str, Any]], Usage]
    at_limit: Callable[[Mapping[str, Any]], bool]
    end_mark: re.Pattern[bytes]
    error_body: Callable[[Failure, Scene], bytes]
    error_in_stream: Callable[[Failure, Scene], bytes]
    as_last_line: Callable[[bytes], bytes] | None = None
    ping: bytes | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One inference route. ``label`` is its path; its method is POST.

    ``operation`` is OpenTelemetry's name for what it does.

    The request:
    ``facts`` are for the policy. ``streams`` is what it does unless told by ``stream``; None:
    it never streams. ``read_form`` finds the model in a form (body, content type, query) and
    raises BodyError; None: the body is JSON. ``wanted_format`` finds the form in which the
    answer is wanted; None: such a request asks for none; ``format_names``: the fields that say
    so. ``needs`` gives what a request needs
    its model to be able to, from its decoded fields; None: nothing that can be said.
    ``searches`` says whether Ollama would search the web for a request; None: never.

    The answer:
    ``is_held``: it is whole, whatever its head says. ``answer_keys``: a whole answer is a JSON
    object with one of them; empty: it may be anything. ``texts`` gives the pieces of the
    assistant's text in a whole answer or in one event of a stream, and raises NoTextError for
    what is no text; None: there is never any. ``unfinished`` says in a sentence why a held
    answer is not the whole of one, None if it is. ``counts``: its usage is read.
    ``waiting_piece`` is what a stream may hold before anything has come: made of the model's
    name and a time, it means nothing.
    """

    label: str
    wire: WireFormat
    facts: EndpointFacts = NO_FACTS
    operation: str = "chat"
    streams: bool | None = None
    read_form: Callable[[bytes, str, str], Body] | None = None
    wanted_format: Callable[[Fields], Wanted | None] | None = None
    format_names: tuple[str, ...] = ()
    needs: Callable[[Mapping[str, Any]], Iterable[Capability]] | None = None
    searches: Callable[[Body], bool] | None = None
    is_held: bool = False
    answer_keys: frozenset[str] = frozenset()
    texts: Callable[[dict[str, Any]], Iterable[Any]] | None = None
    unfinished: Callable[[HeldAnswer], str | None] | None = None
    counts: bool = True
    waiting_piece: Callable[[str, str], bytes] | None = None
