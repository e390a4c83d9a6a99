"""The clouds of this process: who is asked for which model, over which connections.

One ``aiohttp`` session keeps the connections of all; it verifies certificates, follows no
redirect (which would carry the key elsewhere), keeps no cookies, and tries nothing twice.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import aiohttp

from modelsplit_policy.failures import fitted
from modelsplit_policy.model_names import canonical
from modelsplit_policy.vocabulary import Loading
from modelsplit_proxy.providers.call import ProviderCall, at_once
from modelsplit_proxy.providers.dialects import DIALECTS
from modelsplit_proxy.providers.failures import Named, credential
from modelsplit_proxy.providers.ollama_answer import said_loaded
from modelsplit_proxy.providers.prepared import Prepared, Preparing, prepare
from modelsplit_proxy.providers.question import Terms
from modelsplit_proxy.providers.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_policy.config.model import CloudPolicy, CloudProviderPolicy
    from modelsplit_policy.failures import Failure
    from modelsplit_proxy.http.upstream import Exchange
    from modelsplit_proxy.protocol.endpoint import Endpoint
    from modelsplit_proxy.providers.key import ProviderKey
    from modelsplit_proxy.runtime.clock import Clock
    from modelsplit_proxy.runtime.tasks import Tasks

# Connections that were idle for longer may be closed at the other end.
_IDLE_S: Final = 20.0
_CONNECTIONS: Final = 64
_HOTTEST: Final = MappingProxyType({"anthropic": 1.0, "openai": 2.0})
# What a client of the same dialect may say of the API's version.
_VERSION: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


@dataclass(frozen=True, slots=True)
class CloudModel:
    """One model of one provider."""

    clouds: Clouds
    row: CloudProviderPolicy
    parts: Preparing

    def prepare(self, endpoint: Endpoint, raw: bytes, max_tokens: int) -> Prepared | Failure:
        """The client's request, ready to be sent; a Failure says why it cannot be."""
        if (keyless := self.keyless()) is not None:
            return keyless
        named, row = self.parts.named, self.row
        terms = Terms(
            named.model,
            max_tokens,
            row.thinking_tokens,
            has_schemas=row.structured_output,
            is_adaptive=row.adaptive_thinking,
            samples=row.takes_sampling,
            hottest=_HOTTEST[row.dialect],
        )
        return prepare(endpoint, raw, terms, self.parts)

    def keyless(self) -> Failure | None:
        """What a call is told where the provider has no key; None: it has one."""
        named = self.parts.named
        if named.key:
            return None
        where = f"the key of {named.provider} is missing: it is read from {named.key_from}"
        return credential(fitted(where, "put it there and restart modelsplit"))

    def loaded(self, endpoint: Endpoint, loading: Loading | None) -> Exchange:
        """The answer to a call that only loads or unloads: it is as it was."""
        reason = "unload" if loading is Loading.UNLOAD else "load"
        chats = endpoint.facts.content == "messages"
        return at_once(said_loaded(self.parts.name, reason, self.parts.clock, chats=chats))

    def ask(
        self, prepared: Prepared, client: Mapping[str, str] = MappingProxyType({})
    ) -> ProviderCall:
        """Send it. ``client``: the head of the client's request, of which little goes along."""
        return self.clouds.ask(self, prepared, client)


class CertificatesError(Exception):
    """The authorities to be trusted cannot be read."""


class Clouds:
    """Every provider that the policy names.

    ``redactor``: what takes out of a request what the policy takes out; None: nothing does.
    """

    def __init__(
        self,
        policy: CloudPolicy,
        keys: Mapping[str, ProviderKey],
        clock: Clock,
        tasks: Tasks,
        connect_timeout_s: float,
    ) -> None:
        self.clock = clock
        self._tasks = tasks
        self._connect_timeout_s = connect_timeout_s
        self._redactor = Redactor(policy.redact)
        self.redactor = self._redactor if policy.redact else None
        self._tls = {name: _tls(row) for name, row in policy.providers.items()}
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self._models = {
            canonical(name): self._model(provider, row, name, row.models[name], keys[provider])
            for provider, row in policy.providers.items()
            for name in row.models
        }

    def __repr__(self) -> str:
        return f"<Clouds {sorted(self._models)}>"

    def of(self, model: str) -> CloudModel | None:
        """Who answers for ``model``, in any spelling; None: no provider lists it."""
        return self._models.get(canonical(model))

    def ask(self, model: CloudModel, prepared: Prepared, client: Mapping[str, str]) -> ProviderCall:
        row, parts = model.row, model.parts
        version = client.get("anthropic-version", "") if prepared.passes else ""
        if _VERSION.fullmatch(version) is not None:
            row = row.model_copy(update={"version": version})
        betas = client.get("anthropic-beta", "") if prepared.passes else ""
        headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream" if prepared.streams else "application/json",
            "Via": "1.1 modelsplit",
        } | parts.dialect.headers(row, parts.named.key, betas)
        url = f"{row.base_url.rstrip('/')}{parts.dialect.path}"
        session = self._session(parts.named.provider, row)
        return ProviderCall(session, url, headers, prepared, parts, self._tasks)

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()

    def _model(
        self, provider: str, row: CloudProviderPolicy, name: str, own: str | None, key: ProviderKey
    ) -> CloudModel:
        named = Named(provider, own or name, key.source, key.text)
        dialect = DIALECTS[row.dialect]
        return CloudModel(self, row, Preparing(name, named, self._redactor, self.clock, dialect))

    def _session(self, provider: str, row: CloudProviderPolicy) -> aiohttp.ClientSession:
        """Made when it is first needed: it belongs to the running loop."""
        session = self._sessions.get(provider)
        if session is None:
            self._sessions[provider] = session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=_CONNECTIONS, keepalive_timeout=_IDLE_S, ssl=self._tls[provider]
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout_s),
                trust_env=row.use_proxy,
                headers={"User-Agent": "modelsplit"},
            )
        return session


def _tls(row: CloudProviderPolicy) -> ssl.SSLContext:
    """Read at start: what cannot be read is told then. CertificatesError."""
    try:
        return ssl.create_default_context(cafile=row.ca_file)
    except OSError as error:  # of which SSLError is one
        reason = error.strerror or type(error).__name__
        raise CertificatesError(
            f"the authorities in {row.ca_file} cannot be read: {reason}"
        ) from None
