"""What would make an enabled experiment measure something else than its models.

Nothing here is an error: an operator may want exactly that. It is said before it costs a
week of calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from modelsplit_policy.model_names import canonical

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from modelsplit_policy.config.model import ExperimentPolicy, Policy, Scalar

# What Ollama compares when it decides whether a loaded model will do (api.Runner).
_RELOADING: Final = ("num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread")


def warnings(policy: Policy) -> Iterator[str]:
    """A sentence for everything that would make an enabled experiment measure something else."""
    for test in policy.experiments:
        if test.enabled:
            yield from _reloads(policy, test)
            yield from _lonely(policy, test)


def _reloads(policy: Policy, test: ExperimentPolicy) -> Iterator[str]:
    """Arms whose options and those of other calls of the model push each other out of memory."""
    others = dict(_users(policy))
    for arm in test.arms:
        mine = f"arm {arm.name} of {test.name}"
        for who, (model, options) in others.items():
            if who == mine or model != canonical(arm.model):
                continue
            for name in _RELOADING:
                if options.get(name) != others[mine][1].get(name):
                    yield (
                        f"{mine} and {who} call {arm.model[:60]} with another {name}: Ollama loads "
                        "it anew at each change; set it in models instead"
                    )


def _users(policy: Policy) -> Iterator[tuple[str, tuple[str, Mapping[str, Scalar]]]]:
    """Who calls a model by the policy's choice: its canonical name and the pinned options."""
    pinned = {canonical(name): row.options for name, row in policy.models.items()}
    for role, row in policy.roles.items():
        for what, model in (("primary", row.primary), ("fallback", row.fallback)):
            if model is not None:
                name = canonical(model)
                yield f"the {what} of {role}", (name, pinned.get(name, {}))
    for test in policy.experiments:
        for arm in test.arms if test.enabled else ():
            name = canonical(arm.model)
            yield f"arm {arm.name} of {test.name}", (name, {**pinned.get(name, {}), **arm.options})


def _lonely(policy: Policy, test: ExperimentPolicy) -> Iterator[str]:
    """An arm that is the role's fallback already has nobody to fall back to; the others have."""
    fallback = policy.roles[test.role].fallback
    for arm in test.arms:
        if fallback is not None and canonical(arm.model) == canonical(fallback):
            yield (
                f"arm {arm.name} of {test.name} is the fallback of {test.role}: its calls have no "
                "second attempt, so more of them may fail"
            )
