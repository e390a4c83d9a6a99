"""The file of settings: TOML, one line per flag of ``serve``, without its dashes in front.

It is looked for where the policy is: ``$MODELSPLIT_SETTINGS`` (which must exist then),
``$CONFIGURATION_DIRECTORY`` (systemd's), ``/etc/modelsplit``. Flags and variables come before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modelsplit_proxy.config import usual_place

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE_NAME: Final = "settings.toml"
ETC: Final = Path("/etc/modelsplit") / FILE_NAME
VARIABLE: Final = "MODELSPLIT_SETTINGS"


class SettingsFileError(Exception):
    """The file cannot be read, or a value of it. The text names both."""


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """What a file says: setting -> its values as they would be said on the command line."""

    path: Path
    values: Mapping[str, tuple[str, ...]]


def load(environ: Mapping[str, str]) -> SettingsFile | None:
    """The file that is there; None: there is none. Raises SettingsFileError."""
    path = _find(environ)
    if path is None:
        return None
    # Three quarters of a megabyte, and most set-ups have no such file.
    import tomllib  # noqa: PLC0415

    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsFileError(f"{path}: cannot be read: {error}") from error
    return SettingsFile(path, {name: _words(path, name, raw) for name, raw in document.items()})


def _find(environ: Mapping[str, str]) -> Path | None:
    named = environ.get(VARIABLE)
    if named:
        return Path(named)
    return usual_place.find(environ, FILE_NAME, ETC)


def _words(path: Path, name: str, raw: Any) -> tuple[str, ...]:
    """One value, or a list of them, as text."""
    if isinstance(raw, list):
        return tuple(_word(path, name, item) for item in raw)
    return (_word(path, name, raw),)


def _word(path: Path, name: str, raw: Any) -> str:
    if isinstance(raw, bool):
        return "yes" if raw else "no"
    if isinstance(raw, str | int | float):
        return str(raw)
    raise SettingsFileError(
        f"{path}: {name} must be text, a number, true or false, or a list of text"
    )
