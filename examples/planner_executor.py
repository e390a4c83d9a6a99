"""Plan with PLANNER, work with tools, ask EXECUTOR only where a result needs a model.

    modelsplit demo                            # in one terminal; or modelsplit serve
    python examples/planner_executor.py        # in another
    python examples/planner_executor.py http://127.0.0.1:11435 http://127.0.0.1:11436

The job, its calls, its tools and where its time went are then at `modelsplit jobs ID`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from types import MappingProxyType
from typing import Final

from pydantic import BaseModel

from modelsplit_client import Answer, Client, Purpose, Role, ToolResult, needs_llm

GOAL: Final = "Find out why the nightly import of the sales figures fails on this machine."
QUESTIONS: Final = MappingProxyType(
    {
        Purpose.FAILURE_ANALYSIS: "The tool {name} failed. Say in one sentence why:\n{output}",
        Purpose.COMPLEX_OUTPUT: "Say in one sentence what {name} found:\n{output}",
    }
)


class Plan(BaseModel):
    """Which tools to use, in this order."""

    free_space: bool
    known_modules: bool
    try_import: bool


def free_space() -> ToolResult:
    free = shutil.disk_usage("/").free
    return ToolResult(ok=free > 0, output=f"{free // 2**20} MiB are free")


def known_modules() -> ToolResult:
    return ToolResult(ok=True, output=json.dumps(sorted(sys.stdlib_module_names)))


def try_import() -> ToolResult:
    command = [sys.executable, "-c", "import sales_figures"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return ToolResult(ok=done.returncode == 0, output=done.stdout + done.stderr)


TOOLS: Final = MappingProxyType(
    {"free_space": free_space, "known_modules": known_modules, "try_import": try_import}
)


def main(url: str = "http://127.0.0.1:11435", admin_url: str | None = None) -> None:
    with Client(url, admin_url=admin_url, wait_if_busy=30.0) as client, client.job() as job:
        print(f"job {job.id}")
        plan = job.generate(f"{GOAL} Which tools help?", Role.PLANNER, schema=Plan)
        tell("plan", plan)
        for name, wanted in plan.parsed:
            if not wanted:
                continue
            with job.tool(name) as tool:
                result = TOOLS[name]()
                if not result.ok:
                    tool.fail()
            purpose = needs_llm(result)
            if purpose is None:
                print(f"{name}: {result.output}")
                continue
            question = QUESTIONS[purpose].format(name=name, output=result.output[-4000:])
            tell(f"{name}: {purpose}", job.generate(question, Role.EXECUTOR, purpose=purpose))


def tell(what: str, answer: Answer[object]) -> None:
    told = answer.telemetry
    print(f"{what}: {answer.text}")
    print(f"  {told.role} {told.model}, waited {told.queue_wait_ms} ms, {told.total_ms} ms in all")


if __name__ == "__main__":
    main(*sys.argv[1:])
