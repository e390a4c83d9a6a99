"""How often the package ``openai`` asks where the upstream refuses, and what its user sees."""

from __future__ import annotations

import os
import sys
from typing import Any

from openai import APIStatusError, OpenAI

URL = os.environ["MODELSPLIT_URL"]
MESSAGES: Any = [{"role": "user", "content": "What next?"}]

if __name__ == "__main__":
    try:
        OpenAI(base_url=f"{URL}/v1", api_key="unused").chat.completions.create(
            model="qwen3:4b", messages=MESSAGES
        )
    except APIStatusError as error:
        sys.stdout.write(f"{error.status_code}\n")
