"""Lists of models with the aliases in them. What Ollama wrote stays as it wrote it.

An alias's entry is its target's, under a name and a digest of its own, at the end of the
list. A list of another form than Ollama's is left alone (None). An installed model whose
name is an alias's is left out, because calling that name calls the alias.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from modelsplit_policy.model_names import canonical, canonical_stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from modelsplit_policy.catalogue import Alias, Catalogue, Remote

    Entry = dict[str, Any]
    Renamed = Callable[[Alias, Entry], Entry]
    Change = Callable[[bytes], bytes | None]
    Merge = Callable[[Catalogue, bytes], bytes | None]


# A model elsewhere has none of these, and clients read them all.
_NEVER: Final = "1970-01-01T00:00:00Z"
_REMOTE_DETAILS: Final = {
    "parent_model": "",
    "format": "",
    "family": "",
    "families": None,
    "parameter_size": "",
    "quantization_level": "",
}
_REMOTE_MODEL: Final = {"object": "model", "created": 0, "owned_by": "cloud"}


def tags(catalogue: Catalogue, body: bytes) -> bytes | None:
    """An answer of ``/api/tags`` with the aliases."""
    return _merged(catalogue, body, "models", "name", _as_tag)


def models(catalogue: Catalogue, body: bytes) -> bytes | None:
    """An answer of ``/v1/models`` with the aliases."""
    return _merged(catalogue, body, "data", "id", _as_model)


def renamed(name: str, body: bytes) -> bytes | None:
    """An answer of ``/v1/models/*`` under the name it was asked for by."""
    fields = _object(body)
    if not isinstance(fields.get("id"), str):
        return None
    return orjson.dumps(fields | {"id": name}) + b"\n"


def _as_tag(alias: Alias, entry: Entry) -> Entry:
    name, digest = alias.listed, alias.digest(str(entry.get("digest", "")))
    return entry | {"name": name, "model": name, "digest": digest}


def _as_model(alias: Alias, entry: Entry) -> Entry:
    return entry | {"id": alias.listed}


def _merged(
    catalogue: Catalogue, body: bytes, key: str, named_by: str, rename: Renamed
) -> bytes | None:
    fields = _object(body)
    listed = fields.get(key)
    # The list is the last member in Ollama's answers: so it ends where the object does.
    if not isinstance(listed, list) or next(reversed(fields)) != key:
        return None
    by_name = dict(_by_name(listed, named_by))
    ours = [
        rename(alias, entry)
        for alias in catalogue.aliases
        if (entry := _entry_of(alias, by_name, named_by)) is not None
    ]
    if any(catalogue.find(name) is not None for name in by_name):
        shown = [entry for entry in listed if not _is_hidden(catalogue, entry, named_by)]
        return orjson.dumps(fields | {key: shown + ours}) + body[len(body.rstrip()) :]
    if not ours:
        return body
    end = body.rindex(b"]")
    return b"%b,%b%b" % (body[:end], orjson.dumps(ours)[1:-1], body[end:])


def _entry_of(alias: Alias, by_name: dict[str, Entry], named_by: str) -> Entry | None:
    """What is listed of what the alias stands for; None: nothing of it is there."""
    if alias.remote is not None:
        return _REMOTE_MODEL if named_by == "id" else _as_remote(alias.remote)
    target = alias.target(by_name)
    return None if target is None else by_name[canonical(target)]


def _as_remote(remote: Remote) -> Entry:
    """An entry as Ollama lists a model that is computed elsewhere."""
    return {
        "remote_model": remote.model,
        "remote_host": remote.host,
        "modified_at": _NEVER,
        "size": 0,
        "details": _REMOTE_DETAILS,
        "capabilities": capabilities_of(remote),
    }


def capabilities_of(remote: Remote) -> list[str]:
    """What it can, in Ollama's words."""
    return ["completion", "tools", "vision", *(["thinking"] if remote.thinks else [])]


def shown(alias: Alias, remote: Remote) -> bytes:
    """An answer of ``/api/show`` about an alias of a model that is computed elsewhere."""
    about = {
        "remote_model": remote.model,
        "remote_host": remote.host,
        "details": _REMOTE_DETAILS,
        "model_info": {"general.basename": alias.targets[0]},
        "capabilities": capabilities_of(remote),
        "modified_at": _NEVER,
    }
    return orjson.dumps(about)


def one_model(name: str) -> bytes:
    """An answer of ``/v1/models/*`` about a model that is computed elsewhere."""
    return orjson.dumps({"id": name} | _REMOTE_MODEL) + b"\n"


def _by_name(listed: list[Any], named_by: str) -> Iterator[tuple[str, Entry]]:
    for entry in listed:
        if isinstance(entry, dict) and isinstance(entry.get(named_by), str):
            yield canonical_stored(entry[named_by]), entry


def _is_hidden(catalogue: Catalogue, entry: Any, named_by: str) -> bool:
    name = entry.get(named_by) if isinstance(entry, dict) else None
    return isinstance(name, str) and catalogue.find(name) is not None


def _object(body: bytes) -> Entry:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
