"""The keys of clouds: read once at start, from the first place that has one.

1. A credential of systemd's: ``$CREDENTIALS_DIRECTORY/modelsplit-cloud-PROVIDER``.
2. The provider's ``key_file``, if the policy names one; it must be its owner's alone.
3. The variable that its ``key_env`` names.

What a key might be is never shown in a message.
"""

from __future__ import annotations

import re
import shlex
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from modelsplit_policy.verdict import Keyless
from modelsplit_proxy.config.settings import SettingError
from modelsplit_proxy.providers.key import ProviderKey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_policy.config.model import CloudPolicy, CloudProviderPolicy

CREDENTIAL: Final = "modelsplit-cloud-"
# As it stands in a header line.
_KEY: Final = re.compile(r"[!-~]{1,4096}")
_OTHERS_MAY_READ: Final = stat.S_IRGRP | stat.S_IROTH


def read_keys(policy: CloudPolicy, environ: Mapping[str, str]) -> dict[str, ProviderKey]:
    """The key of each provider; SettingError for a file that cannot be used."""
    return {name: read_key(name, row, environ) for name, row in policy.providers.items()}


def read_key(name: str, row: CloudProviderPolicy, environ: Mapping[str, str]) -> ProviderKey:
    """The key of one provider; an empty one where there is none anywhere."""
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if directory:
        path = Path(directory) / f"{CREDENTIAL}{name}"
        if path.exists():
            # systemd guards its credentials by an access list, which looks like a group's right.
            return ProviderKey(_read(path, guarded=True), f"the credential {path.name}")
    if row.key_file is not None:
        return ProviderKey(_read(Path(row.key_file)), f"the file {row.key_file}")
    source = f"${row.key_env}"
    text = environ.get(row.key_env, "").strip()
    return ProviderKey(_checked(text, source) if text else "", source)


def keyless(
    policy: CloudPolicy, keys: Mapping[str, ProviderKey], environ: Mapping[str, str]
) -> tuple[Keyless, ...]:
    """Those of the providers that have none."""
    return tuple(
        Keyless(no_key(name, keys[name]), giving_key(name, row, environ))
        for name, row in policy.providers.items()
        if not keys[name].text
    )


def no_key(name: str, key: ProviderKey) -> str:
    """That a provider has none, and where one would be read from."""
    return f"{name} has no key, so none of its models can be asked: {key.source} is not set"


def giving_key(name: str, row: CloudProviderPolicy, environ: Mapping[str, str]) -> str:
    """How to put a key where that of a provider is read; it is typed, and in no history."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if folder and (Path(folder) / f"{CREDENTIAL}{name}").exists():
        return f"systemctl cat modelsplit   # LoadCredential={CREDENTIAL}{name}: names its file"
    if row.key_file is not None:
        file = shlex.quote(row.key_file)
        return f"install -m 600 /dev/stdin {file}   # type it, end with Ctrl-D, then restart"
    if "NOTIFY_SOCKET" in environ:
        # A unit has no shell to export it in.
        return f"modelsplit print-unit --cloud   # LoadCredential={CREDENTIAL}{name}: names a file"
    return f"read -rs {row.key_env} && export {row.key_env}   # type it, then restart from here"


def _read(path: Path, *, guarded: bool = False) -> str:
    try:
        with path.open(encoding="ascii") as file:
            mode = path.stat().st_mode
            text = file.read(8192).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it holds no ASCII text"
        raise SettingError(f"the key in {path} cannot be read: {reason}") from None
    if mode & _OTHERS_MAY_READ and not guarded:
        raise SettingError(f"the key in {path} may be read by others; chmod 600 it")
    return _checked(text, str(path))


def _checked(text: str, where: str) -> str:
    if _KEY.fullmatch(text) is None:
        raise SettingError(f"what is in {where} is no key: it must be ASCII without spaces")
    return text
