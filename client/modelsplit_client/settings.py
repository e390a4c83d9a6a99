"""What a client is made with, and what every request of it needs of that."""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import httpx

from modelsplit_client import calls
from modelsplit_client.dialect import Dialect
from modelsplit_client.errors import ProxyConnectionError, ProxyTimeoutError
from modelsplit_client.ollama_dialect import OllamaDialect
from modelsplit_client.openai_dialect import OpenAIDialect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_client.calls import Call
    from modelsplit_client.dialect import Speaks

DEFAULT_URL: Final = "http://127.0.0.1:11435"
# Seconds. Beyond every bound that the shipped policy has for a call, so that it is over only where
# modelsplit itself has gone.
READ_TIMEOUT: Final = 1200.0
_CONNECT_TIMEOUT: Final = 5.0
# Seconds. A report is one line, and its job goes on without it.
REPORT_TIMEOUT: Final = 5.0
# As many calls at once as the caller makes: who waits, and for how long, modelsplit decides.
LIMITS: Final = httpx.Limits(max_connections=None, max_keepalive_connections=20)

_SPEAKS: Final[Mapping[Dialect, Speaks]] = MappingProxyType(
    {Dialect.OLLAMA: OllamaDialect(), Dialect.OPENAI: OpenAIDialect()}
)
_DEFAULT_PORTS: Final = MappingProxyType({"http": 80, "https": 443})


@dataclass(frozen=True, slots=True)
class Settings:
    """Addresses without a slash at the end. ``wait_if_busy``: of calls that do not say."""

    base_url: str
    admin_url: str
    headers: dict[str, str]
    speaks: Speaks
    timeout: httpx.Timeout
    wait_if_busy: float

    def request(self, call: Call) -> tuple[str, dict[str, str], bytes]:
        """A call's URL, headers and body. Raises ValueError for what cannot be sent."""
        body = json.dumps(self.speaks.body(call), ensure_ascii=False, allow_nan=False)
        # Half a surrogate pair becomes a question mark: there is no UTF-8 for it.
        content = body.encode(errors="replace")
        return self.base_url + self.speaks.path(call), self.headers | calls.headers(call), content

    def patience(self, call: Call) -> float:
        """Seconds for which a call that is turned away is made again."""
        return call.options.get("wait_if_busy", self.wait_if_busy)

    def unanswered(self, error: httpx.HTTPError) -> ProxyConnectionError:
        """A call that modelsplit gave no answer to."""
        if isinstance(error, httpx.TimeoutException):
            bounds = (
                f"{self.timeout.connect:g} s to connect, {self.timeout.read or 0:g} s of silence"
            )
            return ProxyTimeoutError(f"modelsplit at {self.base_url} is silent ({bounds})")
        why = str(error) or type(error).__name__
        return ProxyConnectionError(f"modelsplit at {self.base_url} does not answer: {why}")


def settings(
    base_url: str,
    admin_url: str | None,
    api_key: str | None,
    dialect: Dialect | str,
    read_timeout: float | None,
    wait_if_busy: float,
) -> Settings:
    """Checked. Raises ValueError for an address or a dialect that is none."""
    base = _url(base_url)
    # Whole answers and streams alike carry what modelsplit adds only where they are not compressed.
    headers = {
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
        "User-Agent": "modelsplit-client",
    }
    if api_key is not None:
        headers["Authorization"] = f"Bearer {api_key}"
    return Settings(
        base_url=str(base).rstrip("/"),
        admin_url=str(_beside(base) if admin_url is None else _url(admin_url)).rstrip("/"),
        headers=headers,
        speaks=_SPEAKS[Dialect(dialect)],
        timeout=httpx.Timeout(read_timeout, connect=_CONNECT_TIMEOUT, pool=None),
        wait_if_busy=wait_if_busy,
    )


def _url(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text if "://" in text else f"http://{text}")
    except httpx.InvalidURL as error:
        raise ValueError(f"{text!r} is no address: {error}") from None
    if url.scheme not in _DEFAULT_PORTS or not url.host:
        raise ValueError(f"{text!r} is no address such as {DEFAULT_URL}")
    return url


def _beside(base: httpx.URL) -> httpx.URL:
    """The admin port's place: the same host, the next port."""
    port = base.port or _DEFAULT_PORTS[base.scheme]
    return base.copy_with(port=port + 1, raw_path=b"/")
