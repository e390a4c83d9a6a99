"""From a policy document to values, with everything wrong with it at once.

`parse` is the only door. It works in three steps, so that one typo never hides another fault:

1. Unknown keys are named, with the known key they resemble. A misspelt key whose meaning is
   plain is then read as the key it resembles, so its value is checked too and nothing is
   reported as missing only because it was misspelt, or called by another program's word.
2. Types and ranges, by pydantic: a number is a number (never ``"6"``, never ``true``).
3. The rules that span several keys, over every part that survived step 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from modelsplit_policy.config.model import M, Policy
from modelsplit_policy.config.problems import (
    EXTENDS,
    MISSING,
    Loc,
    PolicyError,
    Problem,
    json_path,
    message_of,
    problem_at,
    shown,
)
from modelsplit_policy.config.rules import RULES, every_role, read_draft
from modelsplit_policy.config.spelling import Guess, repaired, unknown_key, unknown_keys

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def parse(raw: Mapping[str, object]) -> Policy:
    """Check a whole policy document and return it as values, or raise `PolicyError`.

    The document is the file's JSON after any ``extends`` has been resolved.
    """
    if not isinstance(raw, Mapping):
        raise PolicyError([problem_at((), f"must be an object, not {shown(raw)}")])
    document, guesses = _spelt_right(Policy, raw)
    policy, faults = _checked(document)
    given = {json_path((*loc[:-1], guess.meant)) for loc, guess in guesses.items() if guess.meant}
    # An overlay whose one typo is here: nothing else is missing.
    is_overlay = json_path((EXTENDS,)) in given
    faults = {
        fault
        for fault in faults
        if fault.message != MISSING or not (is_overlay or fault.path in given)
    }
    problems = {guess.problem for guess in guesses.values()} | faults
    if policy is None or problems:
        raise PolicyError(sorted(problems))
    return policy


def check(model: type[M], raw: Mapping[str, object]) -> tuple[M | None, set[Problem]]:
    """Steps 1 and 2 for a document of another kind: its value if it is sound, and what is not."""
    document, guesses = _spelt_right(model, raw)
    value, errors = _validated(model, document)
    problems = {
        problem_at(
            error["loc"], "missing; add it" if error["type"] == "missing" else message_of(error)
        )
        for error in errors
    }
    return value, {guess.problem for guess in guesses.values()} | problems


def _spelt_right(
    model: type[BaseModel], raw: Mapping[str, object]
) -> tuple[dict[str, Any], dict[Loc, Guess]]:
    """Step 1: the document with known keys only, and what each unknown one may be.

    The value of another word is left out: it may be in another unit, or another form.
    """
    _, errors = _validated(model, raw)
    guesses = {loc: unknown_key(model, loc) for loc in unknown_keys(errors, raw)}
    renames = {loc: None if guess.by_meaning else guess.meant for loc, guess in guesses.items()}
    return repaired(raw, renames), guesses


def _checked(document: Mapping[str, object]) -> tuple[Policy | None, set[Problem]]:
    """Steps 2 and 3, for a document without unknown keys."""
    policy, errors = _validated(Policy, document)
    problems = {problem_at(_place(error["loc"]), message_of(error)) for error in errors}
    draft = read_draft(document)
    problems |= {problem for rule in RULES for problem in rule(draft)}
    return policy, problems | set(every_role(document))


def _validated(model: type[M], raw: Mapping[str, object]) -> tuple[M | None, list[ErrorDetails]]:
    try:
        return model.model_validate(raw), []
    except ValidationError as error:
        return None, error.errors(include_url=False)


def _place(loc: Loc) -> Loc:
    """Where the fault is; pydantic marks a fault of a mapping's key with a step of its own."""
    return loc[:-1] if loc[-1:] == ("[key]",) else loc
