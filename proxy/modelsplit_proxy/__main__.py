"""The command ``modelsplit``."""

from __future__ import annotations

import os
import sys

from modelsplit_proxy.cli.main import run


def main() -> None:
    sys.exit(run(sys.argv[1:], os.environ))


if __name__ == "__main__":
    main()
