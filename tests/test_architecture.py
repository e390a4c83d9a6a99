"""The rules of the code base that a type checker and a linter cannot know, read from the syntax.

Each check is a function from one parsed module to the sentences about what is wrong with it, and
each is shown at the end of this file to fail on a snippet that breaks its rule.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ROOT = Path(__file__).parents[1]
SOURCES = (
    ROOT / "policy" / "modelsplit_policy",
    ROOT / "proxy" / "modelsplit_proxy",
    ROOT / "client" / "modelsplit_client",
    ROOT / "sim" / "modelsplit_sim",
)

# Arithmetic, containers and words. Nothing that can tell the time, roll dice, or reach a file,
# a socket, a log or the environment.
POLICY_MAY_IMPORT = frozenset(
    {
        "__future__",
        "array",
        "bisect",
        "collections",
        "dataclasses",
        "difflib",
        "enum",
        "functools",
        "hashlib",
        "heapq",
        "itertools",
        "json",
        "math",
        "modelsplit_policy",
        "re",
        "types",
        "typing",
    }
)
CONFIG_MAY_ALSO_IMPORT = frozenset({"pydantic", "pydantic_core"})
IMPURE_CALLS = frozenset({"open", "print", "input", "breakpoint", "eval", "exec", "__import__"})

# (module, function) of the handlers that may catch everything: the end of one call and the end of
# one background task, where an unforeseen error becomes a record instead of a dead process.
# A new entry needs a sentence here about which of the two boundaries it is. In the proxy:
# the end of one request, on either port, the end of one job of the writer thread, whose future gets
# the error, the end of one finished call on its way to the log or to the disk, which takes no other
# along, and the end of one listener's turn when a call has ended, which takes neither the other
# listeners along nor the client, whose answer is whole.
# In the stand-in: the end of one connection.
BROAD_EXCEPT_ALLOWED: frozenset[tuple[str, str]] = frozenset(
    {
        ("modelsplit_proxy.admin.admin", "_answer"),
        ("modelsplit_proxy.handler", "__call__"),
        ("modelsplit_proxy.records.call_ended", "tell"),
        ("modelsplit_proxy.records.recorder", "_try_insert"),
        ("modelsplit_proxy.records.request_log", "_line"),
        ("modelsplit_proxy.storage.writer", "_run"),
        ("modelsplit_sim.wire", "_guard"),
    }
)

# The rooms of the proxy, from the ground up: a module imports from its own room and from the rooms
# on lower floors, for a type annotation too. A module at the top is a room of its own.
FLOORS = (
    {"runtime"},
    {"http"},
    {"protocol", "storage"},
    {"records", "providers"},
    {"limits"},
    {"watch", "config"},
    {"metrics", "tracing"},
    {"calls", "passthrough", "admin"},
    {"handler"},
    {"app"},
    {"cli"},
    {"__main__"},
)
FLOOR_OF = MappingProxyType({room: floor for floor, rooms in enumerate(FLOORS) for room in rooms})

# What waits, sends, stores or logs: nothing of it in the room that reads bytes and writes them.
PROTOCOL_MAY_NOT_IMPORT = frozenset(
    {
        "aiohttp",
        "asyncio",
        "concurrent",
        "logging",
        "os",
        "socket",
        "sqlite3",
        "threading",
        "uvloop",
    }
)

# (module, function) of the imports that wait until somebody needs them, each with what it saves.
LATE_IMPORTS: frozenset[tuple[str, str]] = frozenset(
    {
        # The stand-in Ollama: two megabytes that a process that serves has no use for.
        ("modelsplit_proxy.cli.commands", "_demo"),
        # The simulation, and the stand-in's package with it: the same.
        ("modelsplit_proxy.cli.simulate_command", "_run"),
        # A client of Redis, from an optional package: eight megabytes.
        ("modelsplit_proxy.app", "_shared_budgets"),
        # rich, an optional package.
        ("modelsplit_proxy.cli.top_command", "_run"),
        # The other commands: half a megabyte.
        ("modelsplit_proxy.cli.main", "_commands"),
        # The table of prices, from an optional package: six megabytes and a tenth of a second.
        ("modelsplit_proxy.config.prices", "_table"),
        # The schema validator: three megabytes, and many clients never send a schema.
        ("modelsplit_proxy.protocol.answer_format", "_of_schema"),
        # What was meant by a misspelt word: half a megabyte, and most spell well.
        ("modelsplit_policy.config.spelling", "_closest"),
        ("modelsplit_proxy.config.settings", "unknown_variables"),
        # The reader of TOML: only where there is a file of settings.
        ("modelsplit_proxy.config.settings_file", "load"),
        ("modelsplit_proxy.runtime.extras", "_with_before"),
        # The operators' routes, each subject by itself: half a megabyte, and most are never asked.
        *(
            ("modelsplit_proxy.admin.late_routes", subject)
            for subject in ("_policy", "_reports", "_requests", "_slo", "_stats")
        ),
        ("modelsplit_proxy.admin.late_routes", "hosts"),
        ("modelsplit_proxy.admin.late_routes", "jobs"),
        # The page and its figures: nobody may ever look at it.
        ("modelsplit_proxy.admin.late_routes", "dashboard"),
        # Judging objectives: a megabyte, and where nobody scrapes or asks nothing is judged.
        ("modelsplit_proxy.records.slo_judge", "of_nothing"),
        ("modelsplit_proxy.records.slo_judge", "_report"),
        # A quarter of a megabyte of the reading of a file of keys, and most have none.
        ("modelsplit_proxy.cli.serve", "_keyring"),
        # What asks a cloud over its own API: half a megabyte, and most processes ask none.
        ("modelsplit_proxy.app", "_configured_clouds"),
        # OpenTelemetry's SDK, an optional package.
        ("modelsplit_proxy.tracing.setup", "traces"),
    }
)

# Where paths of Ollama's stand: the tables, what is asked otherwise on its way through, who
# asks Ollama on our own account, and the client's two dialects, which ask as its users would.
MAY_NAME_ROUTES = frozenset(
    {
        "modelsplit_client.ollama_dialect",
        "modelsplit_client.openai_dialect",
        "modelsplit_proxy.protocol.endpoints",
        "modelsplit_proxy.protocol.routes",
        "modelsplit_proxy.passthrough.fleet_routes",
        "modelsplit_proxy.passthrough.intercept",
        # What a cloud can be asked on them: loaded only where one is configured.
        "modelsplit_proxy.providers.translations",
        # Of a provider: whether it has a model.
        "modelsplit_proxy.cli.cloud_check",
        "modelsplit_proxy.cli.demo",
        "modelsplit_proxy.cli.doctor_upstream",
        "modelsplit_proxy.watch.loaded_models",
        "modelsplit_proxy.watch.model_list",
        "modelsplit_proxy.watch.upstream_probe",
    }
)

# Who in the proxy may import the stand-in's package: what shows without an Ollama, and what tries
# without one.
MAY_IMPORT_SIM = frozenset(
    {
        "modelsplit_proxy.cli.demo",
        "modelsplit_proxy.cli.simulate",
        "modelsplit_proxy.cli.simulate_advice",
        "modelsplit_proxy.cli.simulate_capacity",
        "modelsplit_proxy.cli.simulate_inputs",
    }
)

# Replay computes: it reads no clock, opens nothing and waits for nobody. Chance is seeded.
REPLAY_MAY_IMPORT = POLICY_MAY_IMPORT | {
    *("datetime", "modelsplit_sim", "operator", "random", "statistics"),
}

LONGEST_FUNCTION = 80

STATEFUL_CALLS = frozenset(
    {
        "dict",
        "list",
        "set",
        "bytearray",
        "defaultdict",
        "deque",
        "OrderedDict",
        "Counter",
        "ChainMap",
        "WeakKeyDictionary",
        "WeakSet",
        "WeakValueDictionary",
        "ContextVar",
        "count",
        "cycle",
        "Condition",
        "Event",
        "Lock",
        "Queue",
        "Semaphore",
        "ClientSession",
        "CollectorRegistry",
        "Gauge",
        "Histogram",
        "Summary",
    }
)
PROMETHEUS_COUNTS = frozenset(
    f"prometheus_client.{kind}"
    for kind in ("Counter", "Enum", "Gauge", "Histogram", "Info", "Summary", "metrics")
)
MUTATORS = frozenset(
    {
        "add",
        "append",
        "clear",
        "discard",
        "extend",
        "insert",
        "pop",
        "popitem",
        "remove",
        "reverse",
        "setdefault",
        "sort",
        "update",
    }
)


@dataclass(frozen=True)
class Module:
    """One source file: its dotted name, what it is when imported, and its syntax."""

    name: str
    tree: ast.Module
    package: str  # the package that a relative import starts from

    @property
    def top(self) -> str:
        return self.name.partition(".")[0]


@cache
def parsed(path: Path) -> Module:
    _root, *folders = path.relative_to(ROOT).parent.parts
    parts = [*folders, path.stem]
    package = ".".join(parts[:-1])
    name = package if path.stem == "__init__" else ".".join(parts)
    return Module(name, ast.parse(path.read_text(), str(path)), package)


def modules() -> list[Module]:
    return [parsed(path) for source in SOURCES for path in sorted(source.rglob("*.py"))]


def imports(module: Module) -> Iterator[tuple[ast.stmt, str]]:
    """Every imported module by its absolute name; ``from a import b`` gives ``a`` and ``a.b``."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                up = module.package.split(".")[: len(module.package.split(".")) - node.level + 1]
                origin = ".".join([*up, origin]).strip(".")
            yield node, origin
            for alias in node.names:
                yield node, f"{origin}.{alias.name}"


def tops(module: Module) -> Iterator[tuple[ast.stmt, str]]:
    for node, name in imports(module):
        yield node, name.partition(".")[0]


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def simple_name(node: ast.expr) -> str:
    """The last word of a name or an attribute: what ``collections.deque`` and ``deque`` share."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def is_config(name: str) -> bool:
    """Whether it is the policy file's part of the policy, which pydantic reads."""
    return f"{name}.".startswith("modelsplit_policy.config.")


def policy_imports_only_what_is_pure(module: Module) -> Iterator[str]:
    if module.top != "modelsplit_policy":
        return
    allowed = POLICY_MAY_IMPORT
    if is_config(module.name):
        allowed |= CONFIG_MAY_ALSO_IMPORT
    for node, top in tops(module):
        if top not in allowed:
            yield f"{module.name}:{node.lineno} imports {top}"


def policy_does_nothing_but_decide(module: Module) -> Iterator[str]:
    if module.top != "modelsplit_policy":
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield f"{module.name}:{node.lineno} is asynchronous"
        if isinstance(node, ast.Call) and simple_name(node.func) in IMPURE_CALLS:
            yield f"{module.name}:{node.lineno} calls {simple_name(node.func)}()"


def packages_point_one_way(module: Module) -> Iterator[str]:
    """Policy knows nobody; sim does not know the proxy; two commands alone join the two."""
    for node, top in tops(module):
        where = f"{module.name}:{node.lineno}"
        if module.top == "modelsplit_sim" and top == "modelsplit_proxy":
            yield f"{where}: the stand-in upstream must not know the proxy"
        if (
            top == "modelsplit_sim"
            and module.top == "modelsplit_proxy"
            and module.name not in MAY_IMPORT_SIM
        ):
            yield f"{where}: only {', '.join(sorted(MAY_IMPORT_SIM))} may import the stand-in"
        if module.top == "modelsplit_client" and top in {"modelsplit_proxy", "modelsplit_policy"}:
            yield f"{where}: the client speaks HTTP and imports nothing of the server"


def replay_only_computes(module: Module) -> Iterator[str]:
    if not f"{module.name}.".startswith("modelsplit_sim.replay."):
        return
    for node, top in tops(module):
        if top not in REPLAY_MAY_IMPORT:
            yield f"{module.name}:{node.lineno} imports {top}"
    for call in ast.walk(module.tree):
        if isinstance(call, ast.Call) and simple_name(call.func) in IMPURE_CALLS:
            yield f"{module.name}:{call.lineno} calls {simple_name(call.func)}()"


def room_of(name: str) -> str:
    """The folder of a module of the proxy, or its own name at the top; empty for the package."""
    return f"{name}.".split(".")[1]


def rooms_import_downwards(module: Module) -> Iterator[str]:
    if module.top != "modelsplit_proxy" or module.name == "modelsplit_proxy":
        return
    own = room_of(module.name)
    if own not in FLOOR_OF:
        yield f"{module.name} is in no room that has a floor"
        return
    for node, name in imports(module):
        room = room_of(name)
        if not name.startswith("modelsplit_proxy.") or room in {own, ""}:
            continue
        if FLOOR_OF.get(room, len(FLOORS)) >= FLOOR_OF[own]:
            yield f"{module.name}:{node.lineno} imports upwards, or beside: {name}"


def protocol_does_no_io(module: Module) -> Iterator[str]:
    if not module.name.startswith("modelsplit_proxy.protocol"):
        return
    for node, top in tops(module):
        if top in PROTOCOL_MAY_NOT_IMPORT:
            yield f"{module.name}:{node.lineno} imports {top}"


def late_imports(module: Module) -> Iterator[tuple[str, int]]:
    for function in functions(module.tree):
        for node in ast.walk(function):
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield function.name, node.lineno


def no_hidden_import(module: Module) -> Iterator[str]:
    for function, line in late_imports(module):
        if (module.name, function) not in LATE_IMPORTS:
            yield f"{module.name}:{line} imports inside {function}()"


def no_module_named_by_a_string(module: Module) -> Iterator[str]:
    """What is imported is said where a reader, a type checker and these rules can see it."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and simple_name(node.func) == "import_module":
            yield f"{module.name}:{node.lineno} imports a module by its name"


def metrics_are_counted_one_way(module: Module) -> Iterator[str]:
    """``families`` count, collectors read, prometheus_client renders."""
    for node, name in imports(module):
        if name in PROMETHEUS_COUNTS:
            where = f"{module.name}:{node.lineno}"
            yield f"{where} imports {name}: use modelsplit_proxy.metrics.families"


def no_global(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Global):
            yield f"{module.name}:{node.lineno} global {', '.join(node.names)}"


def module_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run at import, those under a module-level ``if``, ``try`` … included."""
    for node in body:
        yield node
        for field in ("body", "orelse", "finalbody"):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield from module_level(getattr(node, field, []))


def assigned(node: ast.stmt) -> tuple[list[ast.expr], ast.expr | None]:
    if isinstance(node, ast.Assign):
        return node.targets, node.value
    if isinstance(node, ast.AnnAssign | ast.AugAssign):
        return [node.target], node.value
    return [], None


def no_state_in_a_module(module: Module) -> Iterator[str]:
    """A module holds tables, never state.

    A table is a non-empty list, dict or set display bound to an UPPER_CASE name (or ``__all__``)
    and written to nowhere in its module. An empty display or a constructor call at module level
    can only be there to be filled, whatever its name.
    """
    tables = set()
    for node in module_level(module.tree.body):
        targets, value = assigned(node)
        where = f"{module.name}:{node.lineno}"
        names = {simple_name(target) for target in targets}
        if isinstance(value, ast.Call) and simple_name(value.func) in STATEFUL_CALLS:
            yield f"{where} keeps a {simple_name(value.func)}()"
        elif is_display(value):
            tables |= names
            if is_empty(value):
                yield f"{where} keeps an empty container"
            elif not all(name.isupper() or name == "__all__" for name in names):
                yield f"{where} is no constant by its name: {', '.join(sorted(names))}"
    yield from writes(module, tables)


def is_display(value: ast.expr | None) -> bool:
    shapes = ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp
    return isinstance(value, shapes)


def is_empty(value: ast.expr | None) -> bool:
    return (isinstance(value, ast.List) and not value.elts) or (
        isinstance(value, ast.Dict) and not value.keys
    )


def writes(module: Module, tables: set[str]) -> Iterator[str]:
    for node in ast.walk(module.tree):
        written = ""
        if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
            written = simple_name(node.value)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in MUTATORS:
                written = simple_name(node.func.value)
        elif isinstance(node, ast.AugAssign):
            written = simple_name(node.target)
        if written in tables:
            yield f"{module.name}:{getattr(node, 'lineno', 0)} writes to the table {written}"


def catches_everything(node: ast.AST) -> bool:
    if isinstance(node, ast.ExceptHandler):
        caught = [node.type]
    elif isinstance(node, ast.Call) and simple_name(node.func) == "suppress":
        caught = [*node.args]
    else:
        return False
    for one in caught:
        if one is None:
            return True
        kinds = one.elts if isinstance(one, ast.Tuple) else [one]
        if any(simple_name(kind) in {"Exception", "BaseException"} for kind in kinds):
            return True
    return False


def broad_excepts(module: Module) -> Iterator[tuple[str, int]]:
    """Function name (the innermost one, or ``<module>``) and line of each broad handler."""
    pending: list[tuple[ast.AST, str]] = [(module.tree, "<module>")]
    while pending:
        node, inside = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = node.name
        if catches_everything(node):
            yield inside, getattr(node, "lineno", 0)
        pending.extend((child, inside) for child in ast.iter_child_nodes(node))


def broad_except_only_at_the_boundaries(module: Module) -> Iterator[str]:
    for function, line in broad_excepts(module):
        if (module.name, function) not in BROAD_EXCEPT_ALLOWED:
            yield f"{module.name}:{line} catches everything in {function}()"


def functions_fit_on_a_screen(module: Module) -> Iterator[str]:
    for function in functions(module.tree):
        length = (function.end_lineno or function.lineno) - function.lineno + 1
        if length > LONGEST_FUNCTION:
            yield f"{module.name}:{function.lineno} {function.name}() has {length} lines"


def routes_stand_in_tables(module: Module) -> Iterator[str]:
    """Nobody decides by a path but the tables of routes; text that speaks of one has a blank."""
    if module.top == "modelsplit_sim" or module.name in MAY_NAME_ROUTES:
        return
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            continue
        if re.fullmatch(r"(?:[A-Z,]+ )?/(?:api|v1)/\S*", node.value):
            yield f"{module.name}:{node.lineno} names the route {node.value}"


CHECKS = (
    routes_stand_in_tables,
    policy_imports_only_what_is_pure,
    policy_does_nothing_but_decide,
    packages_point_one_way,
    metrics_are_counted_one_way,
    rooms_import_downwards,
    protocol_does_no_io,
    replay_only_computes,
    no_hidden_import,
    no_module_named_by_a_string,
    no_global,
    no_state_in_a_module,
    broad_except_only_at_the_boundaries,
    functions_fit_on_a_screen,
)


# -- tests do not race the machine --------------------------------------------------------------

# (module, function) of what may sleep, read the machine's clocks or be bounded in a test, and why.
# States of other threads are polled (waiting); a client is slow or leaves at any moment on purpose
# (_drip, _storm); fake time is shown to pass, and a machine that is stuck is played (test_support).
REAL_TIME_ALLOWED = frozenset(
    {
        ("support.waiting", "blocking_until"),
        ("e2e.test_hostile_clients", "_drip"),
        ("e2e.test_hostile_clients", "_storm"),
        ("test_support", "sleeper"),
        ("test_support", "test_flowing_time_passes_while_the_loop_turns"),
        ("test_support", "test_flowing_time_stands_still_while_the_loop_does"),
    }
)
CLOCKS = frozenset({"monotonic", "perf_counter", "process_time", "thread_time"})
CLOCKS_NS = frozenset(f"{name}_ns" for name in CLOCKS)
TESTS_TIME = re.compile(r"mark\.(fake|flowing)_time")
COUNTS_CONNECTIONS = re.compile(r"len\(\w+\.peers\)|\bsent\.connection\b")
STARTS_A_PROXY = re.compile(r"\b(in_front_of|running)\(")


def modules_of_tests() -> list[Module]:
    return [parsed(path) for path in sorted((ROOT / "tests").rglob("*.py"))]


def inside(module: Module) -> Iterator[tuple[ast.AST, str, bool]]:
    """Every node, its innermost function, and whether the time there is not the machine's."""
    marked = any(TESTS_TIME.search(ast.unparse(node)) for node in module.tree.body if is_mark(node))
    pending: list[tuple[ast.AST, str, bool]] = [(module.tree, "<module>", marked)]
    while pending:
        node, function, fake = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            marks = " ".join(map(ast.unparse, node.decorator_list))
            fake = fake or TESTS_TIME.search(marks) is not None
            function = function if isinstance(node, ast.ClassDef) else node.name
        yield node, function, fake
        pending.extend((child, function, fake) for child in ast.iter_child_nodes(node))


def is_mark(node: ast.stmt) -> bool:
    return "pytestmark" in {simple_name(target) for target in assigned(node)[0]}


def real_time(module: Module) -> Iterator[tuple[str, str]]:
    """Function and sentence of everything that makes a result hang on how fast the machine is."""
    for node, function, fake in inside(module):
        where = f"{module.name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call):
            name = simple_name(node.func)
            if name == "sleep" and not is_zero(node):
                yield function, f"{where} sleeps: wait for the event itself"
            if (is_bounded_wait(node) and not fake) or (
                name in {"settimeout", "result"} and node.args
            ):
                yield function, f"{where} is bounded: what hangs is ended by tests/conftest.py"
            if name in CLOCKS | CLOCKS_NS:
                yield function, f"{where} reads the machine's clock: {name}()"
            yield from ((function, f"{where} {why}") for why in keywords(node, fake=fake))
        if isinstance(node, ast.Compare) and not fake and has_upper_bound(node):
            yield function, f"{where} bounds what the machine takes: use tests/support/fake_time.py"


def is_bounded_wait(call: ast.Call) -> bool:
    """Of asyncio, or ``sim.wait_for(it, 1.0)``."""
    name = simple_name(call.func)
    return (name == "timeout" and owner(call) == "asyncio") or (
        name == "wait_for" and len(call.args) > 1
    )


def is_zero(call: ast.Call) -> bool:
    return [arg.value for arg in call.args if isinstance(arg, ast.Constant)] == [0]


def owner(call: ast.Call) -> str:
    return simple_name(call.func.value) if isinstance(call.func, ast.Attribute) else ""


def keywords(call: ast.Call, *, fake: bool) -> Iterator[str]:
    for keyword in call.keywords:
        number = isinstance(keyword.value, ast.Constant) and keyword.value.value
        if keyword.arg == "timeout" and number and not fake:
            yield "is bounded: what hangs is ended by tests/conftest.py"
        if keyword.arg == "deadline" and simple_name(call.func) == "settings":
            yield "sets hypothesis's deadline: tests/conftest.py does, for all"


def has_upper_bound(compare: ast.Compare) -> bool:
    """Whether a difference of two moments is the smaller side of a comparison."""
    sides = [compare.left, *compare.comparators]
    for op, left, right in zip(compare.ops, sides[:-1], compare.comparators, strict=True):
        if isinstance(op, ast.Lt | ast.LtE) and is_elapsed(left):
            return True
        if isinstance(op, ast.Gt | ast.GtE) and is_elapsed(right):
            return True
    return False


def is_elapsed(node: ast.expr) -> bool:
    """``now() - began``, whosever clock it is."""
    return (
        isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Sub)
        and isinstance(node.left, ast.Call)
        and simple_name(node.left.func) in {"now", "time"} | CLOCKS
    )


def no_test_races_the_machine(module: Module) -> Iterator[str]:
    for function, sentence in real_time(module):
        if (module.name, function) not in REAL_TIME_ALLOWED:
            yield sentence


def test_no_test_races_the_machine() -> None:
    broken = [
        sentence for module in modules_of_tests() for sentence in no_test_races_the_machine(module)
    ]
    assert not broken, "\n".join(broken)


def clients_questions_are_told_from_our_own(module: Module) -> Iterator[str]:
    """The proxy asks its upstream any time: a connection, or the last request, may be its own."""
    for function in ast.walk(module.tree):
        if not isinstance(function, ast.AsyncFunctionDef):
            continue
        source = ast.unparse(function)
        counts = COUNTS_CONNECTIONS.search(source) and STARTS_A_PROXY.search(source)
        if counts and "curious=False" not in source:
            yield f"{module.name}:{function.lineno} counts connections: curious=False"
        if "up.sim.calls[-1]" in source:
            yield f"{module.name}:{function.lineno} takes the last request: use up.passed_on"


def test_clients_questions_are_told_from_our_own() -> None:
    broken = [
        sentence
        for module in modules_of_tests()
        for sentence in clients_questions_are_told_from_our_own(module)
    ]
    assert not broken, "\n".join(broken)


def test_every_allowance_for_real_time_is_used() -> None:
    used = {
        (module.name, function)
        for module in modules_of_tests()
        for function, _ in real_time(module)
    }
    assert used >= REAL_TIME_ALLOWED


# -- the rules of the packages ------------------------------------------------------------------


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_code_keeps_the_rule(check: Callable[[Module], Iterator[str]]) -> None:
    broken = [sentence for module in modules() for sentence in check(module)]
    assert not broken, "\n".join(broken)


def test_every_allowance_for_a_broad_except_is_used() -> None:
    used = {
        (module.name, function) for module in modules() for function, _ in broad_excepts(module)
    }
    assert used >= BROAD_EXCEPT_ALLOWED


def test_every_allowance_for_a_late_import_is_used() -> None:
    used = {(module.name, function) for module in modules() for function, _ in late_imports(module)}
    assert used == LATE_IMPORTS


# -- no circles ---------------------------------------------------------------------------------


def a_circle(of: Iterable[Module]) -> list[str]:
    """Modules that import each other in a circle, the first one again at the end; empty: none.

    A package's own file only hands names on, and is no module here.
    """
    known = {module.name: module for module in of if module.name != module.package}
    graph = {
        name: {other for _, other in imports(module) if other in known and other != name}
        for name, module in known.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [str(name) for name in error.args[1]]
    return []


def test_no_module_imports_itself_by_a_detour() -> None:
    """Not for a type annotation either: two modules that know each other are one."""
    assert not a_circle(modules())


# -- what ARCHITECTURE.md says of all this ------------------------------------------------------

PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


def drawn_arrows(page: str) -> set[tuple[str, str]]:
    """The arrows of the picture of the rooms; ``a & b --> c`` is two."""
    picture = page.partition("flowchart TD\n")[2].partition("```")[0]
    lines = [line.split(" --> ") for line in picture.splitlines()]
    return {
        (above.strip(), below.strip())
        for tops, bottoms in lines
        for above in tops.split("&")
        for below in bottoms.split("&")
    }


def test_the_picture_of_the_rooms_is_the_rooms() -> None:
    arrows = drawn_arrows(PAGE)
    assert {room for arrow in arrows for room in arrow} == FLOOR_OF.keys() - {"__main__"}
    assert all(FLOOR_OF[above] > FLOOR_OF[below] for above, below in arrows)
    in_table = set(re.findall(r"^\| `(\w+)` \| .* \| `", PAGE, re.MULTILINE))
    assert in_table == FLOOR_OF.keys() - {"__main__"}


def test_every_module_that_the_page_names_exists() -> None:
    """``room/module`` is one of the proxy, or of the policy's rooms; ``policy: module`` is not."""
    names = {module.name for module in modules()}
    shown = [f"modelsplit_policy.{name}" for name in re.findall(r"`policy: ([\w/]+)`", PAGE)]
    assert [name for name in shown if name.replace("/", ".") not in names] == []
    rooms = "|".join(FLOOR_OF)
    shown = re.findall(rf"`((?:{rooms})/\w+)`", PAGE)
    tops = ("modelsplit_proxy", "modelsplit_policy")
    assert shown
    assert [
        name for name in shown if not {f"{top}.{name.replace('/', '.')}" for top in tops} & names
    ] == []


# -- every module has its test ------------------------------------------------------------------


def untested(source: Path, tests: Path) -> list[str]:
    """Modules without a test file of their name in the folder of theirs: the missing paths."""
    files = (path.relative_to(source) for path in sorted(source.rglob("*.py")))
    wanted = [
        tests / file.parent / f"test_{file.name}"
        for file in files
        if not file.stem.startswith("__")
    ]
    return [str(path.relative_to(tests.parent)) for path in wanted if not path.exists()]


@pytest.mark.parametrize("part", ["policy", "proxy", "client"])
def test_every_module_has_its_test_file(part: str) -> None:
    missing = untested(ROOT / part / f"modelsplit_{part}", ROOT / "tests" / part)
    assert not missing, "missing: " + ", ".join(missing)


# -- the policy alone ---------------------------------------------------------------------------

LOAD = """
import sys
sys.path[:0] = sys.argv[2:]
__import__(sys.argv[1])
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def loaded_by(module: str, *folders: Path) -> set[str]:
    """Top-level packages in memory once ``module`` is, in a process that sees only ``folders``."""
    done = subprocess.run(
        # -I: no environment, no current folder; -S: no site-packages, so no editable install.
        [sys.executable, "-I", "-S", "-c", LOAD, module, *map(str, folders)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def policy_modules() -> list[str]:
    source = ROOT / "policy" / "modelsplit_policy"
    return [parsed(path).name for path in sorted(source.rglob("*.py"))]


def needs_config(name: str) -> bool:
    """Whether importing the module runs the policy's ``config``, directly or by a detour."""
    known = {module.name: module for module in modules()}
    seen, pending = set[str](), [name]
    while pending:
        module = pending.pop()
        if module in known.keys() - seen:
            seen.add(module)
            pending += runtime_imports(known[module])
    return any(is_config(module) for module in seen)


def runtime_imports(module: Module) -> set[str]:
    """Imports that run: those under ``if TYPE_CHECKING`` do not."""
    kept = [
        node
        for node in module.tree.body
        if not (isinstance(node, ast.If) and simple_name(node.test) == "TYPE_CHECKING")
    ]
    bare = Module(module.name, ast.Module(kept, []), module.package)
    return {name for _, name in imports(bare)}


@pytest.mark.parametrize("name", policy_modules())
def test_the_policy_stands_alone(name: str) -> None:
    """Each policy module is imported by itself in a bare interpreter.

    A module that does not need ``config`` sees the standard library and nothing else: not even
    pydantic is there to be imported, and asyncio must not come in through a side door. ``config``
    and what imports it may use pydantic, which loads whatever it likes, so about those only this
    is said: with third-party packages at hand and the rest of this project out of reach, they
    import, and nothing of the proxy, the client or the stand-in is loaded.
    """
    folders = [ROOT / "policy"]
    if needs_config(name):
        folders.append(Path(sysconfig.get_path("purelib")))
    loaded = loaded_by(name, *folders)
    assert not loaded & {"modelsplit_proxy", "modelsplit_sim", "modelsplit_client"}
    if not needs_config(name):
        assert not loaded & {"asyncio", "logging", "pydantic", "random", "socket", "threading"}


# -- the checks themselves ----------------------------------------------------------------------


def snippet(source: str, name: str = "modelsplit_policy.roles") -> Module:
    return Module(name, ast.parse(source), name.rpartition(".")[0])


LONG = "def f():\n" + "    x = 1\n" * LONGEST_FUNCTION
PROXY = "modelsplit_proxy.http.relay"
TEST = "e2e.test_calls"
BAD = (
    (policy_imports_only_what_is_pure, "modelsplit_policy.roles", "import asyncio"),
    (policy_imports_only_what_is_pure, "modelsplit_policy.roles", "from time import monotonic"),
    (policy_imports_only_what_is_pure, "modelsplit_policy.roles", "from datetime import datetime"),
    (policy_imports_only_what_is_pure, "modelsplit_policy.roles", "import os.path"),
    (policy_imports_only_what_is_pure, "modelsplit_policy.roles", "import pydantic"),
    (policy_imports_only_what_is_pure, "modelsplit_policy.config", "import orjson"),
    (policy_imports_only_what_is_pure, "modelsplit_policy.x", "from modelsplit_proxy import clock"),
    (policy_does_nothing_but_decide, "modelsplit_policy.roles", "async def f(): ..."),
    (policy_does_nothing_but_decide, "modelsplit_policy.roles", "def f():\n    print(1)"),
    (policy_does_nothing_but_decide, "modelsplit_policy.roles", "x = open('f').read()"),
    (packages_point_one_way, "modelsplit_sim.server", "import modelsplit_proxy.runtime.clock"),
    (packages_point_one_way, PROXY, "from modelsplit_sim import server"),
    (
        packages_point_one_way,
        "modelsplit_client.api",
        "from modelsplit_policy.vocabulary import Role",
    ),
    (metrics_are_counted_one_way, PROXY, "from prometheus_client import Counter"),
    (metrics_are_counted_one_way, PROXY, "from prometheus_client.metrics import Gauge"),
    (rooms_import_downwards, PROXY, "from modelsplit_proxy.calls import reply"),
    (rooms_import_downwards, PROXY, "from modelsplit_proxy.calls.reply import Reply"),
    (rooms_import_downwards, PROXY, "import modelsplit_proxy.app"),
    (rooms_import_downwards, PROXY, "if TYPE_CHECKING:\n    from modelsplit_proxy import app"),
    (rooms_import_downwards, PROXY, "from ..protocol import splice"),
    (rooms_import_downwards, PROXY, "from modelsplit_proxy.attic import lumber"),
    (rooms_import_downwards, "modelsplit_proxy.watch.x", "import modelsplit_proxy.config.keys"),
    (rooms_import_downwards, "modelsplit_proxy.attic.x", ""),
    (rooms_import_downwards, "modelsplit_proxy.services", ""),
    (replay_only_computes, "modelsplit_sim.replay.run", "import time"),
    (replay_only_computes, "modelsplit_sim.replay.run", "open('trace.jsonl')"),
    (protocol_does_no_io, "modelsplit_proxy.protocol.splice", "import asyncio"),
    (protocol_does_no_io, "modelsplit_proxy.protocol.splice", "from aiohttp import web"),
    (routes_stand_in_tables, PROXY, "def f(label): return label == '/api/chat'"),
    (routes_stand_in_tables, PROXY, "def f(label): return label.startswith('/v1/')"),
    (routes_stand_in_tables, "modelsplit_policy.roles", "ROWS = ('POST /api/generate',)"),
    (no_hidden_import, PROXY, "def f():\n    import json"),
    (no_module_named_by_a_string, PROXY, "x = importlib.import_module('a.b')"),
    (no_module_named_by_a_string, PROXY, "def f():\n    return import_module(NAME)"),
    (no_hidden_import, PROXY, "class A:\n    async def f(self):\n        from a import b"),
    (no_global, PROXY, "def f():\n    global x"),
    (no_state_in_a_module, PROXY, "cache = {'a': 1}"),
    (no_state_in_a_module, PROXY, "CACHE: Final[dict[str, int]] = {}"),
    (no_state_in_a_module, PROXY, "SEEN = set()"),
    (no_state_in_a_module, PROXY, "LAST = collections.deque(maxlen=9)"),
    (no_state_in_a_module, PROXY, "if True:\n    names = [1]"),
    (no_state_in_a_module, PROXY, "CALLS = Counter('calls', 'All calls')"),
    (no_state_in_a_module, PROXY, "TABLE = {'a': 1}\ndef f():\n    TABLE['b'] = 2"),
    (no_state_in_a_module, PROXY, "TABLE = {'a': 1}\ndef f():\n    TABLE.pop('a')"),
    (no_state_in_a_module, PROXY, "TABLE = ['a']\nTABLE += ['b']"),
    (broad_except_only_at_the_boundaries, PROXY, "try:\n    f()\nexcept:\n    pass"),
    (broad_except_only_at_the_boundaries, PROXY, "try:\n    f()\nexcept Exception:\n    pass"),
    (
        broad_except_only_at_the_boundaries,
        PROXY,
        "def f():\n    try:\n        g()\n    except (OSError, BaseException) as e:\n        raise",
    ),
    (broad_except_only_at_the_boundaries, PROXY, "with suppress(Exception):\n    f()"),
    (functions_fit_on_a_screen, PROXY, LONG),
    (no_test_races_the_machine, TEST, "async def f():\n    await asyncio.sleep(0.1)"),
    (
        no_test_races_the_machine,
        TEST,
        "@pytest.mark.flowing_time\nasync def f():\n    await asyncio.sleep(every_s)",
    ),
    (no_test_races_the_machine, TEST, "def f():\n    time.sleep(1)"),
    (no_test_races_the_machine, TEST, "async def f():\n    async with asyncio.timeout(5): g()"),
    (no_test_races_the_machine, TEST, "async def f():\n    await asyncio.wait_for(g(), 5)"),
    (no_test_races_the_machine, TEST, "async def f():\n    await sim.wait_for(idle, 5)"),
    (no_test_races_the_machine, TEST, "sock.settimeout(5)"),
    (no_test_races_the_machine, TEST, "assert store.submit(work).result(5) == 1"),
    (no_test_races_the_machine, TEST, "subprocess.run(command, timeout=60)"),
    (no_test_races_the_machine, TEST, "began = time.monotonic()"),
    (no_test_races_the_machine, TEST, "began = perf_counter_ns()"),
    (no_test_races_the_machine, TEST, "assert 0.1 < loop.time() - began < 1"),
    (no_test_races_the_machine, TEST, "assert 1 > clock.now() - began"),
    (no_test_races_the_machine, TEST, "@settings(deadline=200)\ndef f(): ..."),
    (
        clients_questions_are_told_from_our_own,
        TEST,
        "async def f():\n    async with in_front_of(1) as up:\n        assert len(it.peers) == 1",
    ),
    (clients_questions_are_told_from_our_own, TEST, "async def f():\n    g(up.sim.calls[-1])"),
)
GOOD = (
    (policy_imports_only_what_is_pure, "modelsplit_policy.config", "import pydantic"),
    (policy_imports_only_what_is_pure, "modelsplit_policy.roles", "from .facts import Role"),
    (policy_imports_only_what_is_pure, "modelsplit_policy.r", "from collections.abc import Set"),
    (packages_point_one_way, "modelsplit_proxy.cli.demo", "from modelsplit_sim import server"),
    (packages_point_one_way, "modelsplit_proxy.cli.simulate", "from modelsplit_sim import shipped"),
    (replay_only_computes, "modelsplit_sim.server", "import time"),
    (metrics_are_counted_one_way, PROXY, "from prometheus_client.core import GaugeMetricFamily"),
    (rooms_import_downwards, PROXY, "from modelsplit_proxy.runtime.clock import Clock"),
    (rooms_import_downwards, PROXY, "from modelsplit_proxy.http import bounds"),
    (rooms_import_downwards, "modelsplit_proxy.app", "from modelsplit_proxy.calls import reply"),
    (rooms_import_downwards, "modelsplit_policy.roles", "from modelsplit_policy import call"),
    (protocol_does_no_io, PROXY, "import asyncio"),
    (no_hidden_import, PROXY, "if TYPE_CHECKING:\n    from a import b"),
    (no_state_in_a_module, PROXY, "TABLE: Final = {'a': 1}\n__all__ = ['f']\nx = TABLE['a']"),
    (no_state_in_a_module, PROXY, "def f():\n    found = {}\n    found['a'] = 1"),
    (no_state_in_a_module, PROXY, "class A:\n    def __init__(self):\n        self.a = []"),
    (broad_except_only_at_the_boundaries, PROXY, "try:\n    f()\nexcept OSError:\n    pass"),
    (functions_fit_on_a_screen, PROXY, LONG.removesuffix("    x = 1\n")),
    (no_test_races_the_machine, TEST, "async def f():\n    await asyncio.sleep(0)"),
    (no_test_races_the_machine, TEST, "assert loop.time() - began > 0.1"),
    (no_test_races_the_machine, TEST, "async def f():\n    await sim.wait_for(idle)"),
    (
        clients_questions_are_told_from_our_own,
        TEST,
        "async def f():\n    async with in_front_of(1, curious=False):\n        len(it.peers)",
    ),
    (
        no_test_races_the_machine,
        TEST,
        "@pytest.mark.fake_time\nasync def f():\n    await passes(9)",
    ),
    (
        no_test_races_the_machine,
        TEST,
        "pytestmark = pytest.mark.flowing_time\nassert now() - began < 1",
    ),
    (no_test_races_the_machine, "support.waiting", "def blocking_until():\n    sleep(1)"),
)


@pytest.mark.parametrize(("check", "name", "source"), BAD)
def test_a_broken_rule_is_seen(
    check: Callable[[Module], Iterator[str]], name: str, source: str
) -> None:
    assert list(check(snippet(source, name)))


@pytest.mark.parametrize(("check", "name", "source"), GOOD)
def test_a_kept_rule_is_not_reported(
    check: Callable[[Module], Iterator[str]], name: str, source: str
) -> None:
    assert not list(check(snippet(source, name)))


def test_every_check_is_shown_to_fail() -> None:
    of_tests = {no_test_races_the_machine, clients_questions_are_told_from_our_own}
    assert {check for check, _, _ in BAD} == {*CHECKS, *of_tests}


def test_a_circle_is_seen_for_an_annotation_too() -> None:
    one = snippet("from modelsplit_policy.b import B", "modelsplit_policy.a")
    other = snippet("if TYPE_CHECKING:\n    from modelsplit_policy import a", "modelsplit_policy.b")
    assert not a_circle([one])
    assert set(a_circle([one, other])) == {"modelsplit_policy.a", "modelsplit_policy.b"}


def test_a_missing_test_file_is_seen(tmp_path: Path) -> None:
    source, tests = tmp_path / "source", tmp_path / "tests" / "proxy"
    source.mkdir()
    tests.mkdir(parents=True)
    (source / "room").mkdir()
    for name in ("__init__", "__main__", "relay", "queue", "room/__init__", "room/relay"):
        (source / f"{name}.py").touch()
    (tests / "test_relay.py").touch()
    assert untested(source, tests) == ["proxy/test_queue.py", "proxy/room/test_relay.py"]


def test_a_dependency_of_the_policy_is_seen(tmp_path: Path) -> None:
    (tmp_path / "side_door.py").write_text("import asyncio")
    assert "asyncio" in loaded_by("side_door", tmp_path)
