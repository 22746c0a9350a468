"""The gates as JUnit XML: each gate a test case, so that a build server shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import quoteattr

from soakd.triage.text import harmless

_SUMMED = {"failure": "failures", "error": "errors", "skipped": "skipped"}
_TAGS = {"failed": "failure", "harness_error": "error", "inconclusive": "skipped"}


def junit_xml(document: Mapping[str, Any]) -> str:
    """Return the XML text of one test suite.

    An inconclusive gate is skipped, and the suite says the verdict: a build server that counts
    failures alone must not take it for passed, so the verdict is a case of its own.
    """
    cases = [(gate["gate"], gate["status"], gate["text"]) for gate in document["gates"]]
    verdict = document["verdict"]
    status = "passed" if verdict == "passed" else _verdict_status(verdict)
    cases.append(("verdict", status, f"{verdict}: {document['why']}"))
    counts = {tag: sum(_TAGS.get(case[1]) == tag for case in cases) for tag in _TAGS.values()}
    name = document["source"]["path"]
    summary = " ".join(f'{_SUMMED[tag]}="{count}"' for tag, count in counts.items())
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>',
        f'<testsuite name={_quoted(name)} tests="{len(cases)}" {summary}>',
        *(_case(*case) for case in cases),
        "</testsuite>",
    ]
    return "\n".join(lines) + "\n"


def _verdict_status(verdict: str) -> str:
    return "harness_error" if verdict == "harness_error" else "failed"


def _case(name: str, status: str, text: str) -> str:
    head = f'  <testcase classname="soakctl.triage" name={_quoted(name)}'
    tag = _TAGS.get(status)
    if tag is None:
        return f"{head}/>"
    return f"{head}><{tag} message={_quoted(text)}/></testcase>"


def _quoted(text: str) -> str:
    # What XML cannot hold is not printable either.
    return quoteattr(harmless(text))
