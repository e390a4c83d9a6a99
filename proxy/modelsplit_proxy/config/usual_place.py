"""Where a file of ours is looked for that nobody has named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def find(environ: Mapping[str, str], file_name: str, etc: Path) -> Path | None:
    """``file_name`` in ``$CONFIGURATION_DIRECTORY`` (systemd's), else ``etc``; None: neither."""
    # systemd separates several directories by colons (systemd.exec(5)).
    directories = environ.get("CONFIGURATION_DIRECTORY", "").split(":")
    usual = [*(Path(place) / file_name for place in directories if place), etc]
    return next(filter(is_there, usual), None)


def is_there(path: Path) -> bool:
    """Whether something lies at a path, readable or not.

    A file we may not read, or a link to nowhere, is an operator's mistake to report when it is
    read; to pass over it would put what is shipped in force unasked.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True
