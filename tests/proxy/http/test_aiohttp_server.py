"""aiohttp without the certificate authorities that only its client would need."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

LOADED = """
import os, sys
import modelsplit_proxy.__main__
from aiohttp import connector
print(connector._SSL_CONTEXT_VERIFIED.cert_store_stats()["x509"], os.environ.get("SSL_CERT_FILE"))
"""


@pytest.mark.parametrize("named", [None, "/elsewhere/authorities.pem"])
def test_none_is_read_at_the_start_and_the_environment_stays_as_it_was(named: str | None) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "SSL_CERT_FILE"}
    if named is not None:
        environ["SSL_CERT_FILE"] = named
    out = subprocess.run(
        [sys.executable, "-c", LOADED], env=environ, capture_output=True, text=True, check=True
    )
    assert out.stdout.split() == ["0", str(named)]


def test_nobody_that_serves_uses_the_context_that_trusts_nobody() -> None:
    proxy = Path(__file__).parents[3] / "proxy/modelsplit_proxy"
    words = ("ClientSession", "TCPConnector", "aiohttp.client", "aiohttp.request")
    users = {
        str(path.relative_to(proxy)): text
        for path in proxy.rglob("*.py")
        if any(word in (text := path.read_text(encoding="utf-8")) for word in words)
    }
    # The demo asks itself, without TLS. Clouds are asked with a context for each of them.
    assert users.keys() == {"cli/demo.py", "providers/call.py", "providers/clouds.py"}
    connectors = re.findall(r"TCPConnector\([^()]*\)", users["providers/clouds.py"])
    assert len(connectors) == 1
    assert "ssl=self._tls[provider]" in connectors[0]
    assert "TCPConnector" not in users["providers/call.py"]
