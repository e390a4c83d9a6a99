"""The policy file's JSON schema, for editors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelsplit_policy.config.model import Policy

if TYPE_CHECKING:
    from collections.abc import Iterable


def json_schema() -> dict[str, Any]:
    """JSON schema of the policy file, for editors: a whole policy, or an overlay of one.

    An overlay (``"extends": "default"``) is the same shape with nothing required, except
    inside lists, because a list replaces and is therefore written whole.
    """
    policy: dict[str, Any] = _untitled(Policy.model_json_schema())
    shapes: dict[str, Any] = policy.pop("$defs")
    shapes["Policy"] = policy
    listed = {"ArmPolicy", "BudgetPolicy", "ExperimentPolicy"}  # only ever inside lists
    objects = {name for name, shape in shapes.items() if shape.get("type") == "object"} - listed
    overlays = {f"{name}Overlay": _overlay(shapes[name], objects) for name in objects}
    extends = {"const": "default", "description": "Merge this file over the shipped policy."}
    overlays["PolicyOverlay"]["properties"]["extends"] = extends
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "modelsplit policy",
        "type": "object",
        "if": {"required": ["extends"]},
        "then": {"$ref": "#/$defs/PolicyOverlay"},
        "else": {"$ref": "#/$defs/Policy"},
        "$defs": dict(sorted((shapes | overlays).items())),
    }


def _untitled(node: Any) -> Any:
    """Drop the titles pydantic makes of names; they say nothing the name does not."""
    if isinstance(node, dict):
        return {k: _untitled(v) for k, v in node.items() if k != "title"}
    return [_untitled(item) for item in node] if isinstance(node, list) else node


def _overlay(node: Any, objects: Iterable[str]) -> Any:
    if isinstance(node, list):
        return [_overlay(item, objects) for item in node]
    if not isinstance(node, dict):
        return node
    whole = ("items", "propertyNames", "required")
    copy = {k: v if k in whole else _overlay(v, objects) for k, v in node.items()}
    copy.pop("required", None)
    name = str(copy.get("$ref", "")).removeprefix("#/$defs/")
    return copy | {"$ref": f"#/$defs/{name}Overlay"} if name in objects else copy
