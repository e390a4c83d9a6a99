"""Do the policy's clouds know its models, and take our keys? For ``check-config --online``."""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from modelsplit_proxy.config.cloud_keys import read_key
from modelsplit_proxy.config.settings import SettingError
from modelsplit_proxy.providers.dialects import DIALECTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from modelsplit_policy.config.model import CloudPolicy, CloudProviderPolicy
    from modelsplit_proxy.providers.key import ProviderKey

_TIMEOUT_S: Final = 10.0
_MODELS: Final = "/v1/models/"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The key goes nowhere else."""

    def redirect_request(self, *args: object, **kwargs: object) -> None:
        del args, kwargs


def troubles(policy: CloudPolicy, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What is wrong: where in the policy, and a sentence without any key."""
    for name, row in policy.providers.items():
        at = f"$.cloud.providers.{name}"
        try:
            key = read_key(name, row, environ)
        except SettingError as error:
            yield at, str(error)
            continue
        if not key.text:
            yield at, f"there is no key: it is read from {key.source}"
            continue
        yield from _asked(name, row, key, at)


def _asked(
    name: str, row: CloudProviderPolicy, key: ProviderKey, at: str
) -> Iterator[tuple[str, str]]:
    for model, own in row.models.items():
        there = own or model
        try:
            status = _status(row, key, there)
        except (OSError, http.client.HTTPException) as error:
            yield at, f"cannot be asked at {row.base_url}: {_words(error)}"
            return
        if status in {401, 403}:
            yield at, f"{name} does not take the key from {key.source} ({status})"
            return
        if status == 404:
            yield f"{at}.models", f"{name} does not know {there}, which {model} is to be there"
        elif status != 200:
            yield at, f"{name} answered {status} when asked for {there}"


def _status(row: CloudProviderPolicy, key: ProviderKey, model: str) -> int:
    """What it answers to whether it has a model."""
    handlers: list[urllib.request.BaseHandler] = [
        urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=row.ca_file)),
        _NoRedirect(),
    ]
    if not row.use_proxy:
        handlers.append(urllib.request.ProxyHandler({}))
    # The policy allows http and https alone.
    request = urllib.request.Request(  # noqa: S310
        f"{row.base_url.rstrip('/')}{_MODELS}{quote(model, safe='')}",
        headers=DIALECTS[row.dialect].headers(row, key.text, ""),
    )
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=_TIMEOUT_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def _words(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    return str(getattr(reason, "strerror", None) or getattr(reason, "reason", None) or reason)
