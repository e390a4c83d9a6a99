"""What importing the client takes, and what it says where that is missing."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "client"
NOT_THERE = "import sys; sys.modules['httpx'] = None; import modelsplit_client"
LOADED = """
import sys
sys.path[:0] = sys.argv[1:]
import modelsplit_client
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_without_httpx_one_sentence_says_what_to_install() -> None:
    command = [sys.executable, "-c", NOT_THERE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    *_, last = done.stderr.splitlines()
    assert done.stderr.count("Traceback") == 1
    assert last == (
        "ModuleNotFoundError: modelsplit_client needs httpx, which modelsplit's extra client"
        " brings: pip install httpx"
    )


def test_it_loads_nothing_of_the_server_nor_pydantic() -> None:
    packages = sysconfig.get_path("purelib")
    # -I: no environment, no current folder; -S: no site-packages, so no editable install.
    command = [sys.executable, "-I", "-S", "-c", LOADED, str(SOURCE), packages]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "httpx" in loaded
    assert not loaded & {"modelsplit_policy", "modelsplit_proxy", "modelsplit_sim"}
    assert not loaded & {"aiohttp", "orjson", "pydantic", "uvloop"}
