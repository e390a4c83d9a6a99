"""Where the keys of clients are, if there are any. What is in them: ``key_file``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from modelsplit_proxy.config.policy_file import existing
from modelsplit_proxy.config.usual_place import is_there

if TYPE_CHECKING:
    from collections.abc import Mapping

CREDENTIAL: Final = "modelsplit-keys"


def find(flag: Path | None, environ: Mapping[str, str]) -> Path | None:
    """Choose the file of keys; None: keys are off.

    1. ``--keys`` or ``$MODELSPLIT_KEYS``: named by the operator, so it has to exist.
    2. ``$CREDENTIALS_DIRECTORY`` (systemd's ``LoadCredential=``): only if it is there.
    """
    if flag is not None:
        return existing(flag, "--keys or $MODELSPLIT_KEYS")
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        return None
    path = Path(directory) / CREDENTIAL
    return path if is_there(path) else None
