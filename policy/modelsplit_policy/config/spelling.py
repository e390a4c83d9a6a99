"""Unknown keys, and the known ones they resemble."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel

from modelsplit_policy.config.model import Policy
from modelsplit_policy.config.other_words import OTHER_WORDS, meant_by, unit_hint
from modelsplit_policy.config.problems import EXTENDS, Loc, Problem, Step, problem_at
from modelsplit_policy.slo.names import OBJECTIVES
from modelsplit_policy.vocabulary import Role

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


# Below it a guess misleads more often than it helps.
_LIKE: Final = 0.7


def _within(annotation: Any, step: Step) -> Any:
    """The type found one step inside a type: a field, a mapping's value, a list's item."""
    annotation = _given(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return next((f.annotation for key, f in _fields(annotation) if key == step), None)
    args = get_args(annotation)
    return args[1 if get_origin(annotation) is Mapping else 0] if args else None


def _given(annotation: Any) -> Any:
    """What a value is if it is there: the type without its marks and without null."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _given(args[0])
    if origin is Union or type(None) in args:
        return next((_given(arg) for arg in args if arg is not type(None)), None)
    return annotation


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    return ((field.alias or name, field) for name, field in model.model_fields.items())


def _known_keys(root: type[BaseModel], parent: Loc) -> list[str]:
    annotation: Any = root
    for step in parent:
        annotation = _within(annotation, step)
    annotation = _given(annotation)
    if annotation is Policy:
        return [*(key for key, _ in _fields(Policy)), EXTENDS]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [key for key, _ in _fields(annotation)]
    return list(OBJECTIVES) if parent == ("slo",) else [role.value for role in Role]


def _closest(key: str, known: Sequence[str]) -> str | None:
    """Known key that a misspelt one resembles, case aside; None where a guess would mislead."""
    import difflib  # noqa: PLC0415

    by_fold = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(key.casefold(), by_fold, n=1, cutoff=_LIKE)
    return by_fold[close[0]] if close else None


class Guess(NamedTuple):
    """What an unknown key may be. ``meant``: the known key; None: nobody can tell.

    ``by_meaning``: it is another word for it, so its value may be in another form.
    """

    problem: Problem
    meant: str | None = None
    by_meaning: bool = False


def unknown_key(root: type[BaseModel], loc: Loc) -> Guess:
    *parent, step = loc
    key = str(step)
    if root is Policy and loc == (EXTENDS,):
        return Guess(problem_at(loc, "must be resolved before the policy is parsed"))
    known = _known_keys(root, tuple(parent))
    word = meant_by(key, known)
    meant = word or _closest(key, known)
    if meant is None:
        meant = word = meant_by(_closest(key, [*OTHER_WORDS]) or "", known)
    if meant is None:
        return Guess(problem_at(loc, f"unknown key; known here: {', '.join(known)}"))
    text = f'unknown key; did you mean "{meant}"{unit_hint(key, meant)}?'
    return Guess(problem_at(loc, text), meant, word is not None)


def unknown_keys(errors: Iterable[ErrorDetails], raw: Mapping[str, object]) -> Iterator[Loc]:
    """Places of keys that nothing reads: fields, roles, objectives."""
    for error in errors:
        loc = error["loc"]
        if error["type"] == "extra_forbidden":
            yield loc
        elif loc[-1] == "[key]" and error["type"] == "enum":
            yield loc[:-1]
    slo = raw.get("slo")
    if isinstance(slo, Mapping):
        yield from (("slo", key) for key in slo if key not in OBJECTIVES)


def repaired(raw: Any, renames: Mapping[Loc, str | None], at: Loc = ()) -> Any:
    """Copy of the document with unknown keys read as what they resemble, or left out.

    A key that is present under its right name as well keeps the right one.
    """
    if isinstance(raw, Mapping):
        kept = {k: repaired(v, renames, (*at, k)) for k, v in raw.items()}
        meant = {renames[*at, k]: v for k, v in kept.items() if (*at, k) in renames}
        right = {k: v for k, v in kept.items() if (*at, k) not in renames}
        known = (meant | right).items()
        return {k: v for k, v in known if k is not None and (*at, k) != (EXTENDS,)}
    if isinstance(raw, list | tuple):
        return [repaired(item, renames, (*at, i)) for i, item in enumerate(raw)]
    return raw
