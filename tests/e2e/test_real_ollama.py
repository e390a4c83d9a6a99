"""What a real Ollama says of the spellings that ``test_model_names`` has a table of.

Left out unless asked for: ``MODELSPLIT_TEST_OLLAMA=127.0.0.1:11434 pytest -m ollama``. It
asks ``/api/show`` alone, and of no name that Ollama would ask its cloud about.
"""

from __future__ import annotations

import http.client
import os
from pathlib import Path

import orjson
import pytest

from modelsplit_policy.model_names import read, runs_in_cloud

pytestmark = pytest.mark.ollama

TABLE = Path(__file__).parents[1] / "policy" / "model_names.json"
NAMES = [row[0] for row in orjson.loads(TABLE.read_bytes())]
HERE = [name for name in NAMES if read(name) is None or not runs_in_cloud(name)]


@pytest.mark.parametrize("name", HERE)
def test_ollama_reads_what_we_read_and_refuses_what_we_refuse(name: str) -> None:
    ollama = http.client.HTTPConnection(os.environ["MODELSPLIT_TEST_OLLAMA"])
    ollama.request("POST", "/api/show", orjson.dumps({"model": name}))
    status = ollama.getresponse().status
    ollama.close()
    assert (status == 400) == (read(name) is None)
