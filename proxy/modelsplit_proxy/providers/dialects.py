"""The APIs that a provider may have: one row each, all brought into the Messages API's form."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

from modelsplit_proxy.protocol.stream_end import DONE
from modelsplit_proxy.providers.chat_answer import ChatEvents, message_of
from modelsplit_proxy.providers.chat_question import of_question
from modelsplit_proxy.providers.events import checked
from modelsplit_proxy.providers.translations import CHAT_PATH, MESSAGES_PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from modelsplit_policy.config.model import CloudProviderPolicy
    from modelsplit_proxy.providers.events import StreamEvent
    from modelsplit_proxy.providers.question import Question, Terms


class Events(Protocol):
    """Reads the events of one stream; each gives events of the Messages API."""

    def read(self, event: StreamEvent) -> Iterable[Mapping[str, Any]]: ...


@dataclass(frozen=True, slots=True)
class ProviderDialect:
    """One API.

    ``path`` is where it is asked, and the route whose clients speak it. ``headers`` are made of
    the provider, its key and what the client's ``anthropic-beta`` says. ``ask`` makes its request
    of one of the Messages API, and names all of the client's that is not in it;
    UntranslatableError. ``message`` makes a message of its
    whole answer, ``events`` reads its streams. ``passes``: what it says to a client that speaks
    it is passed on as it came.
    """

    path: str
    headers: Callable[[CloudProviderPolicy, str, str], dict[str, str]]
    ask: Callable[[Question, Terms], tuple[dict[str, Any], tuple[str, ...]]]
    message: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    events: Callable[[], Events]
    passes: bool


class _OwnEvents:
    def read(self, event: StreamEvent) -> Iterable[Mapping[str, Any]]:
        # Some gateways end with it, as chat completions do.
        return () if event.text == DONE else (checked(event),)


def _own(question: Question, terms: Terms) -> tuple[dict[str, Any], tuple[str, ...]]:
    del terms
    return question.body, question.untranslated


def _same(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    return answer


def _messages_headers(row: CloudProviderPolicy, key: str, betas: str) -> dict[str, str]:
    wanted = ",".join((*row.betas, *([betas] if betas else ())))
    headers = {"x-api-key": key, "anthropic-version": row.version}
    return headers | ({"anthropic-beta": wanted} if wanted else {})


def _chat_headers(row: CloudProviderPolicy, key: str, betas: str) -> dict[str, str]:
    del row, betas
    return {"Authorization": f"Bearer {key}"}


DIALECTS: Final = MappingProxyType(
    {
        "anthropic": ProviderDialect(
            MESSAGES_PATH, _messages_headers, _own, _same, _OwnEvents, passes=True
        ),
        "openai": ProviderDialect(
            CHAT_PATH, _chat_headers, of_question, message_of, ChatEvents, passes=False
        ),
    }
)
