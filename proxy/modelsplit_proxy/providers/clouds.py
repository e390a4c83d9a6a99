"""The clouds of this process: who is asked for which model, over which connections.

One ``aiohttp`` session keeps the connections of all; it verifies certificates, follows no
redirect (which would carry the key elsewhere), keeps no cookies, and tries nothing twice.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import aiohttp

from modelsplit_policy.model_names import canonical
from modelsplit_policy.vocabulary import Loading
from modelsplit_proxy.providers.call import ProviderCall, at_once
from modelsplit_proxy.providers.failures import Named, credential
from modelsplit_proxy.providers.ollama_answer import said_loaded
from modelsplit_proxy.providers.prepared import Prepared, Preparing, prepare
from modelsplit_proxy.providers.question import Terms
from modelsplit_proxy.providers.redaction import Redactor
from modelsplit_proxy.providers.translations import MESSAGES_PATH

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


@dataclass(frozen=True, slots=True)
class CloudModel:
    """One model of one provider."""

    clouds: Clouds
    row: CloudProviderPolicy
    parts: Preparing

    def prepare(self, endpoint: Endpoint, raw: bytes, max_tokens: int) -> Prepared | Failure:
        """The client's request, ready to be sent; a Failure says why it cannot be."""
        named, row = self.parts.named, self.row
        if not named.key:
            where = f"the key of {named.provider} is missing: it is read from"
            return credential(f"{where} {named.key_from}")
        terms = Terms(named.model, max_tokens, row.thinking_tokens, row.structured_output)
        return prepare(endpoint, raw, terms, self.parts)

    def loaded(self, endpoint: Endpoint, loading: Loading | None) -> Exchange:
        """The answer to a call that only loads or unloads: it is as it was."""
        reason = "unload" if loading is Loading.UNLOAD else "load"
        chats = endpoint.facts.content == "messages"
        return at_once(said_loaded(self.parts.name, reason, self.parts.clock, chats=chats))

    def ask(self, prepared: Prepared, betas: str = "") -> ProviderCall:
        """Send it. ``betas``: what the client's own ``anthropic-beta`` says."""
        return self.clouds.ask(self, prepared, betas)


class CertificatesError(Exception):
    """The authorities to be trusted cannot be read."""


class Clouds:
    """Every provider that the policy names."""

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

    def ask(self, model: CloudModel, prepared: Prepared, betas: str) -> ProviderCall:
        row, named = model.row, model.parts.named
        headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream" if prepared.streams else "application/json",
            "x-api-key": named.key,
            "anthropic-version": row.version,
            "Via": "1.1 modelsplit",
        }
        wanted = ",".join((*row.betas, *([betas] if betas else ())))
        if wanted:
            headers["anthropic-beta"] = wanted
        url = f"{row.base_url.rstrip('/')}{MESSAGES_PATH}"
        session = self._session(named.provider, row)
        return ProviderCall(session, url, headers, prepared, named, self.clock, self._tasks)

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()

    def _model(
        self, provider: str, row: CloudProviderPolicy, name: str, own: str | None, key: ProviderKey
    ) -> CloudModel:
        named = Named(provider, own or name, key.source, key.text)
        return CloudModel(self, row, Preparing(name, named, self._redactor, self.clock))

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
