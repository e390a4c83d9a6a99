"""Do the policy's clouds take our keys and know its models? For ``check-config`` and ``doctor``."""

from __future__ import annotations

import http.client
import shlex
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote, urlsplit

import orjson

from modelsplit_policy.failures import said_back
from modelsplit_policy.near_names import near
from modelsplit_proxy.config.cloud_keys import giving_key, no_key, read_key
from modelsplit_proxy.config.settings import SettingError
from modelsplit_proxy.providers.dialects import DIALECTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from modelsplit_policy.config.model import CloudPolicy, CloudProviderPolicy
    from modelsplit_proxy.providers.key import ProviderKey

_TIMEOUT_S: Final = 10.0
_MODELS: Final = "/v1/models"
# The most that one page of the list may have.
_PAGE: Final = f"{_MODELS}?limit=1000"
_ANSWER_BYTES: Final = 16 * 1024 * 1024
_NAME_MAX: Final = 80
_FILTER: Final = (
    "; where it is modelsplit.service that cannot, its address filter may be why: "
    "modelsplit print-unit --cloud"
)


class Trouble(NamedTuple):
    """Something that keeps a provider from answering.

    ``at``: where in the policy. ``cause``: a sentence without any key. ``step``: the command that
    mends it, or shows more. ``no_key``: there is none in this environment; another may have one.
    """

    at: str
    cause: str
    step: str
    no_key: bool = False


class Told(NamedTuple):
    """What a provider answered. ``body``: the JSON it holds; None: it holds none."""

    status: int
    body: Any


def troubles(
    policy: CloudPolicy, environ: Mapping[str, str], file: str = "model-policy.json"
) -> Iterator[Trouble]:
    """What keeps the providers of ``policy`` from answering. ``file``: the policy's."""
    for name, row in policy.providers.items():
        key = _key(name, row, environ)
        if isinstance(key, Trouble):
            yield key
        else:
            yield from _Asking(name, row, key, environ, file).troubles()


def without_key(policy: CloudPolicy, environ: Mapping[str, str]) -> Iterator[Trouble]:
    """The providers that cannot be asked for want of a key; nobody is asked."""
    keys = (_key(name, row, environ) for name, row in policy.providers.items())
    return (key for key in keys if isinstance(key, Trouble))


def _key(name: str, row: CloudProviderPolicy, environ: Mapping[str, str]) -> ProviderKey | Trouble:
    """Its key, or that there is none that can be used."""
    at = f"$.cloud.providers.{name}"
    try:
        key = read_key(name, row, environ)
    except SettingError as error:
        return Trouble(at, str(error), giving_key(name, row, environ))
    if key.text:
        return key
    return Trouble(at, no_key(name, key), giving_key(name, row, environ), no_key=True)


@dataclass(frozen=True, slots=True)
class _Asking:
    """One provider, its key, and where the one is named and the other found."""

    name: str
    row: CloudProviderPolicy
    key: ProviderKey
    environ: Mapping[str, str]
    file: str

    @property
    def at(self) -> str:
        return f"$.cloud.providers.{self.name}"

    def troubles(self) -> Iterator[Trouble]:
        try:
            if self.row.dialect == "openai":
                yield from self._by_list()
            else:
                yield from self._by_name()
        except (OSError, http.client.HTTPException) as error:
            yield self._unreachable(error)

    def _by_name(self) -> Iterator[Trouble]:
        """The Messages API is asked for each model: an alias of one is in no list."""
        for model, own in self.row.models.items():
            there = own or model
            told = self._get(f"{_MODELS}/{quote(there, safe='')}")
            if told.status == 404:
                yield self._unknown(model, there, self._names(self._get(_PAGE)) or ())
            elif told.status != 200:
                yield self._refused(told.status, there)
                if told.status in {401, 403}:
                    return

    def _by_list(self) -> Iterator[Trouble]:
        """Few of those who speak chat completions tell of a single model."""
        told = self._get(_MODELS)
        names = self._names(told)
        if names is None:
            yield self._refused(told.status, "its models")
            return
        for model, own in self.row.models.items():
            there = own or model
            if there not in names:
                yield self._unknown(model, there, names)

    def _names(self, told: Told) -> tuple[str, ...] | None:
        """What it has; None: it does not say."""
        rows = told.body.get("data") if isinstance(told.body, dict) else None
        if told.status != 200 or not isinstance(rows, list):
            return None
        names = [row.get("id") for row in rows if isinstance(row, dict)]
        return tuple(name for name in names if isinstance(name, str))

    def _unknown(self, model: str, there: str, names: tuple[str, ...]) -> Trouble:
        like = near(there, names)
        meant = "" if like is None else f"; it has {said_back(like, _NAME_MAX)}"
        cause = f"{self.name} does not know {there}, which {model} is to be there{meant}"
        line = f'"{model}": "{like or "ITS NAME THERE"}"'
        where = f"{self.at}.models"
        return Trouble(
            where, cause, f"${{EDITOR:-vi}} {shlex.quote(self.file)}   # {where}: {line}"
        )

    def _refused(self, status: int, what: str) -> Trouble:
        name, source = self.name, self.key.source
        if status in {401, 403}:
            no = "does not take the key" if status == 401 else "allows nothing with the key"
            step = giving_key(name, self.row, self.environ)
            return Trouble(self.at, f"{name} {no} from {source} ({status})", step)
        cause = f"{name} answered {status} when asked for {what}"
        if status in {429, 529} or status >= 500:
            return Trouble(self.at, f"{cause}: ask again later", self._by_curl())
        return Trouble(self.at, f"{cause}; is {self.row.base_url} its base_url?", self._by_curl())

    def _unreachable(self, error: Exception) -> Trouble:
        """It cannot be asked at all."""
        reason = getattr(error, "reason", error)
        parts = urlsplit(self.row.base_url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        cause = f"{self.name} cannot be asked at {self.row.base_url}: {_words(reason)}"
        if isinstance(reason, ssl.SSLCertVerificationError):
            cause += "; an authority of your own is named by ca_file"
            shown = f"openssl s_client -connect {host}:{port} -servername {host} </dev/null"
            return Trouble(self.at, cause, shown)
        if isinstance(reason, OSError) and type(reason).__name__ == "gaierror":
            return Trouble(self.at, cause, f"getent hosts {shlex.quote(host)}")
        return Trouble(self.at, f"{cause}{_FILTER}", self._by_curl())

    def _by_curl(self) -> str:
        """The same question, to be seen in full; the key is not on the command line."""
        proxy = "" if self.row.use_proxy else " --noproxy '*'"
        return f"curl -sS -i{proxy} {shlex.quote(self._url(_MODELS))}"

    def _url(self, path: str) -> str:
        return f"{self.row.base_url.rstrip('/')}{path}"

    def _get(self, path: str) -> Told:
        """OSError, HTTPException."""
        row = self.row
        handlers: list[urllib.request.BaseHandler] = [
            urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=row.ca_file)),
            _NoRedirect(),
        ]
        if not row.use_proxy:
            handlers.append(urllib.request.ProxyHandler({}))
        # The policy allows http and https alone.
        request = urllib.request.Request(  # noqa: S310
            self._url(path), headers=DIALECTS[row.dialect].headers(row, self.key.text, "")
        )
        try:
            opened = urllib.request.build_opener(*handlers).open(request, timeout=_TIMEOUT_S)
        except urllib.error.HTTPError as error:
            with error:
                return Told(error.code, None)
        with opened as answer:
            raw = answer.read(_ANSWER_BYTES)
        try:
            return Told(int(answer.status), orjson.loads(raw))
        except orjson.JSONDecodeError:
            return Told(int(answer.status), None)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The key goes nowhere else."""

    def redirect_request(self, *args: object, **kwargs: object) -> None:
        del args, kwargs


def _words(reason: object) -> str:
    """Why, in a few words."""
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"its certificate is not to be trusted ({reason.verify_message})"
    if isinstance(reason, ssl.SSLError):
        return f"it does not speak TLS as we do ({reason.reason})"
    if isinstance(reason, TimeoutError):
        return f"no answer in {_TIMEOUT_S:g} s"
    return str(getattr(reason, "strerror", None) or reason)
