"""``modelsplit doctor --bundle``: what a bug report needs, with what names somebody taken out.

Nothing in it was ever a prompt, an answer or a key, since neither log nor record has any. Taken
out besides: clients' addresses and names, jobs, this machine's name, the user's home directory.
"""

from __future__ import annotations

import io
import sqlite3
import sys
import tarfile
from importlib.metadata import distributions
from typing import TYPE_CHECKING, Any, Final

import orjson

from modelsplit_policy.config.problems import PolicyError
from modelsplit_proxy.cli.doctor_findings import get
from modelsplit_proxy.cli.output import CommandError, ExitCode
from modelsplit_proxy.config import policy_file
from modelsplit_proxy.config.settings import OPTIONS
from modelsplit_proxy.runtime.disk_trouble import drop_begun, explained

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from modelsplit_proxy.cli.doctor_findings import Look

_FOLDER: Final = "modelsplit-doctor"
# What the running proxy is asked.
_ASKED: Final = (
    ("stats.json", "/stats"),
    ("healthz.json", "/healthz"),
    ("requests.json", "/requests?limit=200"),
)
# Fields whose values name somebody; each value gets a number.
_NAMING: Final = frozenset({"client", "clients", "job_id", "name_of_key", "by_whom", "by"})
_REDACTED: Final = frozenset({"allow-host", "allow-origin", "otlp-endpoint", "keys"})


def write(path: Path, look: Look, report: Mapping[str, Any], home: Path, machine: str) -> None:
    """Write the archive, readable by its owner alone; CommandError where there is one already."""
    try:
        with path.open("xb") as file:
            path.chmod(0o600)
            with tarfile.open(fileobj=file, mode="w:gz") as archive:
                for name, value in _values(look, report):
                    _add(archive, name, Redaction(home, machine)(value), look.clock.wall())
    except FileExistsError:
        raise CommandError(f"{path} is there already; move it away", ExitCode.FAILED) from None
    except OSError as error:
        text = f"{path} cannot be made: {explained(error, path)}"
        drop_begun(path, error)
        raise CommandError(text, ExitCode.FAILED) from None


class Redaction:
    """Takes names out of values; the same name becomes the same number within one value."""

    def __init__(self, home: Path, machine: str) -> None:
        self._words = [(str(home), "~")] if len(home.parts) > 1 else []
        if machine:
            self._words.append((machine, "MACHINE"))
        self._numbers: dict[str, str] = {}

    def __call__(self, value: Any, key: str = "") -> Any:
        """The value without them; ``key``: under which it stands."""
        if isinstance(value, dict):
            return {name: self(item, str(name)) for name, item in value.items()}
        if isinstance(value, list):
            return [self(item, key) for item in value]
        if not isinstance(value, str):
            return value
        if key in _NAMING:
            return self._numbers.setdefault(value, f"{key}-{len(self._numbers) + 1}")
        for word, instead in self._words:
            value = value.replace(word, instead)
        for name, instead in self._numbers.items():
            value = value.replace(name, instead)
        return value


def _values(look: Look, report: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "doctor.json", report
    yield "versions.json", _versions()
    yield "settings.json", dict(_settings(look))
    yield "policy.json", _policy(look)
    yield (
        "ollama.json",
        {
            "version": None if look.version is None else look.version.body,
            "installed": None if look.installed is None else look.installed.body,
            "loaded": None if look.loaded is None else look.loaded.body,
        },
    )
    if look.stats is not None:
        for name, path in _ASKED:
            answer = get(look.settings.admin, path)
            yield name, None if answer is None else answer.body


def _versions() -> dict[str, Any]:
    return {
        "python": sys.version,
        "platform": sys.platform,
        "sqlite": sqlite3.sqlite_version,
        "packages": {found.name: found.version for found in distributions()},
    }


def _settings(look: Look) -> Iterator[tuple[str, Any]]:
    """Our variables and the ones of Ollama that are no address of somebody."""
    for option in OPTIONS:
        if option.variable in look.environ:
            text = look.environ[option.variable]
            yield option.variable, "(set)" if option.name in _REDACTED else text
    for name, text in sorted(look.environ.items()):
        if name.startswith("OLLAMA_"):
            yield name, "(set)" if "KEY" in name or "ORIGIN" in name else text


def _policy(look: Look) -> Any:
    try:
        path = policy_file.find_policy(look.settings.policy, look.environ)
        return policy_file.document(path)
    except (OSError, PolicyError) as error:
        return {"error": str(error)}


def _add(archive: tarfile.TarFile, name: str, value: Any, wall: float) -> None:
    raw = orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS) + b"\n"
    info = tarfile.TarInfo(f"{_FOLDER}/{name}")
    info.size, info.mtime, info.mode = len(raw), int(wall), 0o600
    archive.addfile(info, io.BytesIO(raw))
