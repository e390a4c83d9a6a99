"""The command ``modelsplit``."""

from __future__ import annotations

import os
import sys

from modelsplit_proxy.cli.main import run
from modelsplit_proxy.runtime import streams


def main() -> None:
    streams.prepare()
    streams.leave(run(sys.argv[1:], os.environ))


if __name__ == "__main__":
    main()
