"""``python -m support.patient serve …``: ``modelsplit serve``, its own bounds far away.

As those of ``support.patience`` for a proxy that runs in the test.
"""

from __future__ import annotations

from modelsplit_proxy import __main__, app
from modelsplit_proxy.limits import shared_sums
from modelsplit_proxy.storage.writer import Store
from support.patience import DISK, FAR_AWAY_S


def main() -> None:
    for module, name in (*DISK, (app, "_FIRST_LOOK_S"), (shared_sums, "TIMEOUT_S")):
        setattr(module, name, FAR_AWAY_S)
    defaults = Store.__init__.__kwdefaults__
    assert defaults is not None
    defaults["urgent_s"] = FAR_AWAY_S
    __main__.main()


if __name__ == "__main__":
    main()
