"""What ``modelsplit simulate`` reads: policies, traces, workloads, the figures of a host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import orjson

from modelsplit_policy.config.model import HostPolicy
from modelsplit_policy.quantity import in_digits
from modelsplit_proxy.cli import requests
from modelsplit_proxy.cli.output import CommandError, ExitCode
from modelsplit_proxy.config import policy_file
from modelsplit_proxy.config.settings import read_settings
from modelsplit_proxy.records import trace
from modelsplit_proxy.runtime.clock import SystemClock
from modelsplit_proxy.runtime.disk_trouble import explained
from modelsplit_sim import shipped
from modelsplit_sim.host_file import HostError, host_of
from modelsplit_sim.replay import azure
from modelsplit_sim.replay import trace as replay_trace
from modelsplit_sim.replay.azure import AzureTraffic
from modelsplit_sim.replay.demand import Retries
from modelsplit_sim.replay.fit import fit
from modelsplit_sim.replay.from_trace import Behaviour, RecordedTraffic
from modelsplit_sim.replay.recorded import TraceError
from modelsplit_sim.replay.run import Contender, missing_figures
from modelsplit_sim.replay.traffic import DrawnWorkload

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from modelsplit_policy.config.model import Policy
    from modelsplit_sim.host_shape import HostShape
    from modelsplit_sim.replay.recorded import Recorded
    from modelsplit_sim.replay.traffic import Source

_LOAD_MOST: Final = 100.0
_HOSTS_MOST: Final = 16
_RETRIES_MOST: Final = 10
_BUDGET_LEAST: Final = 30


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be simulated: who contends, on what, with which traffic, how often.

    ``warnings``: what to know of the host's figures.
    """

    contenders: Sequence[Contender]
    host: HostShape
    source: Source
    seeds: int
    warnings: Sequence[str] = ()


def task_of(args: argparse.Namespace, environ: Mapping[str, str]) -> Task:
    """What the flags say is to be simulated. CommandError: an input is none."""
    contenders = list(_contenders(args, environ))
    host, source, warnings = _host_and_source(args, environ, contenders[0].policy)
    traffic, _ = source.drawn(1)
    for contender in contenders:
        missing = missing_figures(contender, host, traffic.demands)
        if missing:
            raise CommandError(_without_figures(args, contender, missing), ExitCode.USAGE)
    return Task(contenders, host, source, args.seeds, warnings)


def _without_figures(args: argparse.Namespace, contender: Contender, missing: list[str]) -> str:
    """What is missing, and what to add to the command."""
    named = ", ".join(missing)
    whole = [name for name in shipped.hosts() if not set(missing) - set(shipped.host(name).models)]
    steps = [f"--host-model {name}, which is shipped" for name in whole[:1]]
    steps.append("a file that --fit wrote, with theirs added under `models`, as --host-model")
    if args.policy is None:
        steps.append("the policy that the proxy runs with, as --policy, if it is another one")
    return (
        f"{contender.name} may ask for {named}, of which the host model has no figures; add "
        f"{', or '.join(steps)}"
    )


def check(args: argparse.Namespace) -> None:
    """That the flags go together."""
    source = _source_named(args)
    if sum((args.fit, args.capacity, args.advise)) > 1:
        raise _usage("--fit, --capacity and --advise are three things: one at a time")
    _check_advise(args)
    _check_files(args)
    if args.hosts is not None and not 1 <= args.hosts <= _HOSTS_MOST:
        raise _usage(f"--hosts is 1 to {_HOSTS_MOST}")
    if args.seeds < 1:
        raise _usage(f"--seeds {args.seeds} is less than 1")
    if not 0 < args.load <= _LOAD_MOST:
        raise _usage(f"--load {in_digits(args.load)} is not above 0 and at most {_LOAD_MOST:g}")
    if args.fit and source not in {"trace", "last"}:
        raise _usage("--fit reads records: it goes with --trace or --last")
    if args.load != 1 and args.workload is None:
        raise _usage("--load goes with --workload")
    if args.thin < 1 or (args.thin > 1 and args.azure is None):
        raise _usage("--thin N keeps every N-th arrival, and goes with --azure")
    if args.azure is not None and args.host_model is None:
        raise _usage("--azure needs --host-model: it tells nothing of any host")
    if args.retries is not None and not 0 <= args.retries <= _RETRIES_MOST:
        raise _usage(f"--retries {args.retries} is not between 0 and {_RETRIES_MOST}")


def _source_named(args: argparse.Namespace) -> str:
    """Which flag says what is replayed: one must."""
    names = ("trace", "last", "workload", "azure")
    named = [name for name in names if getattr(args, name) is not None]
    if not named:
        raise _usage("say what to replay: one of --trace, --last, --workload and --azure")
    if len(named) > 1:
        given = " and ".join(f"--{name}" for name in named)
        raise _usage(f"{given} both say what to replay: give one of them")
    return named[0]


def _check_files(args: argparse.Namespace) -> None:
    """That what is to be written can be, before minutes of work are for nothing."""
    other = next((name for name in ("fit", "capacity", "advise") if getattr(args, name)), None)
    if other is not None and (args.html is not None or args.check):
        given = "--check" if args.check else "--html"
        raise _usage(f"{given} goes with a replay, and --{other} is none")
    for path in (args.html, args.write):
        if path is not None and not path.parent.is_dir():
            raise _usage(f"{path} cannot be written: there is no folder {path.parent}")


def _check_advise(args: argparse.Namespace) -> None:
    given = [
        name for name in ("keep", "budget", "minutes", "write") if getattr(args, name) is not None
    ]
    if given and not args.advise:
        raise _usage(f"--{given[0]} goes with --advise")
    if args.budget is not None and args.budget < _BUDGET_LEAST:
        raise _usage(f"--budget {args.budget} is less than {_BUDGET_LEAST}: no search at all")
    if args.minutes is not None and not args.minutes > 0:
        raise _usage(f"--minutes {in_digits(args.minutes)} is not above 0")
    if args.advise and args.against is not None:
        raise _usage("--advise compares with the policy itself, and --against is not used")


def _usage(text: str) -> CommandError:
    return CommandError(text, ExitCode.USAGE)


def _contenders(args: argparse.Namespace, environ: Mapping[str, str]) -> Iterator[Contender]:
    """What it is compared with, if anything, and the policy."""
    loaded = policy_file.load(policy_file.find_policy(args.policy, environ))
    name = Path(loaded.source).name
    if args.against is not None:
        yield _against(args.against, loaded.policy, name)
    elif args.hosts is not None:
        yield Contender(name, loaded.policy)
    if args.hosts is None:
        yield Contender(name, loaded.policy)
    else:
        yield Contender(f"{name}, {args.hosts} hosts", _on(args.hosts, loaded.policy))


def _on(count: int, policy: Policy) -> Policy:
    """The policy with so many hosts, whichever it names."""
    urls = {f"host{number}": f"http://host{number}:11434" for number in range(1, count + 1)}
    hosts = {name: HostPolicy.model_validate({"url": url}) for name, url in urls.items()}
    return policy.model_copy(update={"hosts": MappingProxyType(hosts)})


def _against(said: str, policy: Policy, name: str) -> Contender:
    kind, _, model = said.partition(":")
    if kind == "direct":
        return Contender(f"direct, {model or 'split'}", policy, direct=model)
    if said == "shipped":
        return Contender("shipped", policy_file.load(None).policy)
    other = policy_file.load(policy_file.existing(Path(said), "--against"))
    own = Path(other.source).name
    return Contender(own if own != name else f"{own} (against)", other.policy)


def _host_and_source(
    args: argparse.Namespace, environ: Mapping[str, str], policy: Policy
) -> tuple[HostShape, Source, Sequence[str]]:
    """The host, what is replayed on it, and what to know of the host's figures."""
    retries = None if args.retries is None else Retries(args.retries)
    if args.workload is not None:
        workload, host = shipped.workload(args.workload)
        if args.host_model is not None:
            host = _read_host(args.host_model)
        return host, DrawnWorkload(workload, load=args.load, retries=retries), ()
    if args.azure is not None:
        host = _read_host(args.host_model)
        files = [_azure(text) for text in args.azure]
        spread, again = host.spread, retries or Retries()
        source = AzureTraffic(files, policy, thin=args.thin, spread=spread, retries=again)
        return host, source, ()
    calls = recorded(args, environ)
    warnings: Sequence[str] = ()
    if args.host_model is None:
        found = fit(calls)
        host = found.shape
        warnings = [f"the host's figures: {warning}" for warning in found.warnings]
    else:
        host = _read_host(args.host_model)
    behaviour = Behaviour(args.closed_loop, retries or Retries())
    return host, RecordedTraffic(calls, policy, host, behaviour), warnings


def _azure(text: str) -> tuple[list[azure.Arrival], azure.Mapping]:
    """One file with whose calls they stand for, as ``FILE=NAME`` or ``FILE=NAME,NAME>TOKENS``."""
    path, found, mapping = text.partition("=")
    if not found:
        raise _usage(f'--azure "{text}" is not FILE=NAME')
    lines = (raw.decode("utf-8", "replace") for raw in _file_lines(Path(path)))
    try:
        return azure.read(lines), azure.mapping_of(mapping)
    except TraceError as error:
        raise TraceError(f"{path}: {error}") from None
    except ValueError as error:
        raise _usage(f"--azure: {error}") from None


def recorded(args: argparse.Namespace, environ: Mapping[str, str]) -> list[Recorded]:
    """The calls of the trace, or of the last hours. TraceError: what of it is none."""
    if args.trace is not None:
        return _calls(str(args.trace), _file_lines(args.trace))
    admin = read_settings({"admin": args.admin}, environ).admin
    pieces = requests.exported({"since": args.last}, admin, args.state, SystemClock())
    return _calls(f"--last {args.last}", b"".join(pieces).splitlines())


def _calls(name: str, lines: Iterable[bytes]) -> list[Recorded]:
    """The calls in these lines. TraceError: what is wrong, of what by name, and in which line."""
    try:
        return replay_trace.read(_objects(lines))
    except TraceError as error:
        raise TraceError(f"{name}: {error}") from None


def _objects(lines: Iterable[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, raw in enumerate(lines, 1):
        if not raw or raw.isspace():
            continue
        try:
            yield number, trace.read(raw)
        except trace.TraceError as error:
            raise TraceError(str(error), number) from None


def _file_lines(path: Path) -> Iterable[bytes]:
    try:
        return path.read_bytes().splitlines()
    except OSError as error:
        raise _usage(f"{path} cannot be read: {explained(error, path)}") from None


def _read_host(name: str) -> HostShape:
    """From a file, or one of those that are shipped."""
    path = Path(name)
    if not path.suffix and not path.exists():
        return shipped.host(name)
    try:
        raw = orjson.loads(path.read_bytes())
    except OSError as error:
        raise _usage(f"{path} cannot be read: {explained(error, path)}") from None
    except orjson.JSONDecodeError as error:
        raise _usage(f"{path} is not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise _usage(f"{path} is no JSON object")
    try:
        return host_of(raw)
    except HostError as error:
        raise _usage(f"{path}: {error}") from None
