"""A report on objectives as JUnit's XML, for build servers. Only the command needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from modelsplit_policy.slo.report import Verdict
from modelsplit_proxy.records.slo_report import (
    finding_lines,
    gate_name,
    planner_text,
    value_text,
    wanted_text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def junit(report: Mapping[str, Any]) -> bytes:
    """The report as JUnit's XML: a suite for each gate, a case for each objective.

    A breach is a failure; missing data and what is not judged are skipped.
    """
    root = ET.Element("testsuites", name="modelsplit slo")
    for gate in report["gates"]:
        suite = _suite(root, gate_name(gate), gate["objectives"], report["at"])
        if told := planner_text(gate):
            ET.SubElement(suite, "system-out").text = told
    ET.indent(root)
    written: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return written + b"\n"


def _suite(root: ET.Element, name: str, found: Sequence[Mapping[str, Any]], at: str) -> ET.Element:
    verdicts = [entry["verdict"] for entry in found]
    skipped = verdicts.count(Verdict.NOT_ENOUGH_DATA) + verdicts.count(Verdict.NOT_JUDGED)
    suite = ET.SubElement(
        root,
        "testsuite",
        name=name,
        tests=str(len(found)),
        failures=str(verdicts.count(Verdict.BREACH)),
        errors="0",
        skipped=str(skipped),
        timestamp=at[:19],
    )
    for entry in found:
        case = ET.SubElement(suite, "testcase", classname=f"slo.{name}", name=entry["title"])
        told = "\n".join(finding_lines(entry, 0))
        if entry["verdict"] == Verdict.BREACH:
            value = value_text(entry["value"], entry["unit"])
            failure = ET.SubElement(case, "failure", message=f"{value}, not {wanted_text(entry)}")
            failure.text = told
        elif entry["verdict"] != Verdict.PASS:
            ET.SubElement(case, "skipped", message=entry["note"] or entry["verdict"])
    return suite
