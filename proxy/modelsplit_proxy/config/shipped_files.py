"""Files that come with the program, for ``print-unit``, ``print-policy`` and ``completion``.

The wheel carries them as package data; a checkout has them where they are edited.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Final

# Name in the package's folder ``data`` -> path in a checkout. pyproject.toml has the same pairs.
FILES: Final = MappingProxyType(
    {
        "model-policy.json": "config/model-policy.json",
        "model-policy.schema.json": "config/model-policy.schema.json",
        "modelsplit.service": "systemd/modelsplit.service",
        "modelsplit.socket": "systemd/modelsplit.socket",
        "user/modelsplit.service": "systemd/user/modelsplit.service",
        "user/modelsplit.socket": "systemd/user/modelsplit.socket",
        "modelsplit.bash": "contrib/completions/modelsplit.bash",
        "_modelsplit": "contrib/completions/_modelsplit",
        "modelsplit.fish": "contrib/completions/modelsplit.fish",
    }
)
_DATA: Final = resources.files("modelsplit_proxy") / "data"
# This module lies four folders below the checkout's root.
_CHECKOUT: Final = Path(__file__).parents[3]


def read(name: str) -> str:
    """The text of one of ``FILES``."""
    packaged = _DATA.joinpath(name)
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (_CHECKOUT / FILES[name]).read_text(encoding="utf-8")
