"""What Ollama means by the name of a model, whatever its spelling.

Ollama reads a name in two ways. Calls, ``/api/show``, pull and delete *call* a model: white
space around the name goes, and the end may say where the model runs (``:cloud``, ``-cloud``,
``:local``). Create, copy, push and its lists name a model as it is *stored*: nothing is
trimmed, and ``:local`` is a tag like any other. Either way scheme, registry, namespace and tag
are optional, and case means nothing.

Every decision that hangs on a model's name goes by ``canonical``. A name that Ollama cannot
read runs nothing; whoever is sent one by a client refuses it.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final, NamedTuple

from modelsplit_policy.bounded_memo import BoundedMemo
from modelsplit_policy.failures import ErrorCode, Failure, Reason, said_back

# What Go's strings.TrimSpace removes. Python's strip removes more.
_SPACE: Final = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
_CLOUD_TAG: Final = "-cloud"
_HOST: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_NAMESPACE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_MODEL_OR_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_OWN_HOST: Final = "registry.ollama.ai"
_OWN_NAMESPACE: Final = "library"
_DEFAULT_TAG: Final = "latest"


class Source(StrEnum):
    """Where a name asks the model to be run. Unspecified: here, if it is installed here."""

    UNSPECIFIED = "unspecified"
    LOCAL = "local"
    CLOUD = "cloud"


class ModelName(NamedTuple):
    """A name as Ollama reads it. ``text``: what all spellings of one model have in common.

    ``text`` is lower case, without scheme and without what Ollama would fill in: its own
    registry, ``library``, ``latest``. A model of the cloud ends in ``:cloud`` or ``-cloud``,
    as in ``glm-4.6:cloud`` and ``gpt-oss:20b-cloud``. ``:local`` is no part of it.
    """

    text: str
    source: Source = Source.UNSPECIFIED


class ModelNames:
    """Names as they are called, read once each while few are in use."""

    def __init__(self) -> None:
        self._known: BoundedMemo[str, ModelName | None] = BoundedMemo()

    def __repr__(self) -> str:
        return f"<ModelNames {len(self._known)} known>"

    def read(self, name: str) -> ModelName | None:
        """As ``read`` of this module."""
        if name in self._known:
            return self._known[name]
        return self._known.keep(name, name, read(name))

    def canonical(self, name: str) -> str:
        """As ``canonical`` of this module."""
        parsed = self.read(name)
        return name if parsed is None else parsed.text


def read(name: str) -> ModelName | None:
    """A name by which a model is called, pulled or deleted; None if Ollama cannot read it."""
    trimmed = name.strip(_SPACE)
    base, source = _without_source(trimmed)
    if source is not Source.UNSPECIFIED and _without_source(base)[1] is not Source.UNSPECIFIED:
        return None
    text = _text(base, cloud=source is Source.CLOUD)
    return None if text is None else ModelName(text, source)


def read_stored(name: str) -> ModelName | None:
    """A name under which a model is created, copied, pushed or listed; None as in ``read``."""
    text = _text(name, cloud=False)
    if text is None:
        return None
    tag = text.rpartition("/")[2].partition(":")[2]
    # What is stored under such a tag is called in the cloud, if it can be called at all.
    is_cloud = tag == "cloud" or tag.endswith(_CLOUD_TAG)
    return (read(text) if is_cloud else None) or ModelName(text)


def canonical(name: str) -> str:
    """What all spellings of the model called ``name`` have in common.

    A name that Ollama cannot read, the empty one too, stands for itself: it is no model's.
    """
    parsed = read(name)
    return name if parsed is None else parsed.text


def canonical_stored(name: str) -> str:
    """The same for a name out of Ollama's lists, and for one to be created."""
    parsed = read_stored(name)
    return name if parsed is None else parsed.text


def runs_in_cloud(name: str) -> bool:
    """Whether Ollama sends a call of ``name`` to its cloud; so it counts where that is open."""
    parsed = read(name)
    return bool(name) if parsed is None else parsed.source is Source.CLOUD


def unreadable(name: str) -> Failure:
    """What to answer where a client sends a name that Ollama cannot read."""
    return Failure(
        ErrorCode.BAD_REQUEST,
        Reason.BAD_MODEL_NAME,
        f'"{said_back(name)}" cannot be read as the name of a model; send it as `ollama list` '
        'shows it, such as "qwen3:8b"',
        "Bad Model Name",
    )


def _without_source(name: str) -> tuple[str, Source]:
    """The name without what its end says of where the model runs, and what that is."""
    before, colon, raw = name.rpartition(":")
    if not colon:
        return name, Source.UNSPECIFIED
    tag = raw.strip(_SPACE)
    lowered = tag.lower()
    if lowered == "cloud":
        return before, Source.CLOUD
    if lowered == "local":
        return before, Source.LOCAL
    if lowered.endswith(_CLOUD_TAG) and "/" not in tag:
        return f"{before}:{tag[: -len(_CLOUD_TAG)]}", Source.CLOUD
    return name, Source.UNSPECIFIED


def _text(name: str, *, cloud: bool) -> str | None:
    """``ModelName.text`` of scheme, registry, namespace, model and tag; None if one is wrong."""
    tag = _DEFAULT_TAG
    if name.rfind(":") > name.rfind("/"):
        name, _, tag = name.rpartition(":")
    folder, slash, model = name.rpartition("/")
    if not (_MODEL_OR_TAG.fullmatch(model) and _MODEL_OR_TAG.fullmatch(tag)):
        return None
    prefix = _prefix(folder, cloud=cloud) if slash else ""
    if prefix is None:
        return None
    return f"{prefix}{model}{_suffix(tag.lower(), cloud=cloud)}".lower()


def _prefix(folder: str, *, cloud: bool) -> str | None:
    """What stands before the last slash, as far as it tells models apart; None if it is wrong."""
    before, slash, namespace = folder.rpartition("/")
    if not _NAMESPACE.fullmatch(namespace) or (slash and not before):
        return None
    scheme, mark, rest = before.partition("://")
    host = (rest if mark else scheme) or _OWN_HOST
    if not _HOST.fullmatch(host):
        return None
    # There is one cloud, and it is not known what it makes of another registry.
    if cloud or host.lower() == _OWN_HOST:
        return "" if namespace.lower() == _OWN_NAMESPACE else f"{namespace}/"
    return f"{host}/{namespace}/"


def _suffix(tag: str, *, cloud: bool) -> str:
    if tag == _DEFAULT_TAG:
        return ":cloud" if cloud else ""
    return f":{tag}{_CLOUD_TAG}" if cloud else f":{tag}"
