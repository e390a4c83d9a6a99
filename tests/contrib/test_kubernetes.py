"""The pod: right by Kubernetes' own schemas, and by what it promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

MANIFEST = Path(__file__).parents[2] / "contrib" / "kubernetes" / "modelsplit.yaml"
# The oldest that has sidecars by default, and the newest that the schemas are there of.
VERSIONS = ("1.29", kubernetes_validate.latest_version())
DOCUMENTS = [*yaml.safe_load_all(MANIFEST.read_text())]
KINDS = [document["kind"] for document in DOCUMENTS]
[SET] = [document for document in DOCUMENTS if document["kind"] == "StatefulSet"]
POD = SET["spec"]["template"]["spec"]
[PROXY] = POD["containers"]
[OLLAMA] = POD["initContainers"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("document", DOCUMENTS, ids=KINDS)
def test_it_is_right_by_the_schemas(document: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


def test_the_schemas_are_such_that_can_fail() -> None:
    wrong = SET | {"spec": SET["spec"] | {"replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_ollama_is_a_sidecar_that_ends_after_us_and_that_only_we_reach() -> None:
    assert OLLAMA["restartPolicy"] == "Always"
    assert {"name": "OLLAMA_HOST", "value": "127.0.0.1:11434"} in OLLAMA["env"]
    assert {"name": "MODELSPLIT_UPSTREAM", "value": "http://127.0.0.1:11434"} in PROXY["env"]


def test_a_drain_has_the_time_that_it_may_take() -> None:
    [_, seconds] = PROXY["lifecycle"]["preStop"]["exec"]["command"]
    assert POD["terminationGracePeriodSeconds"] > 30 + int(seconds)


def test_it_is_asked_whether_it_lives_and_whether_it_is_ready() -> None:
    asked = {name: PROXY[name]["exec"]["command"][-1] for name in PROXY if name.endswith("Probe")}
    assert {name: "/readyz" in text for name, text in asked.items()} == {
        "startupProbe": False,
        "livenessProbe": False,
        "readinessProbe": True,
    }


def test_it_has_no_rights_and_bounds() -> None:
    security = PROXY["securityContext"]
    assert security["runAsNonRoot"]
    assert security["readOnlyRootFilesystem"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert PROXY["resources"]["limits"]["memory"]
    assert OLLAMA["resources"]["requests"]["memory"]
