"""`soakctl triage BUNDLE|DIR`: from records to a verdict, without any daemon."""

from __future__ import annotations

import argparse

from soakctl.failures import Failure, exit_of_verdict
from soakctl.render import safe
from soakctl.session import Session


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares `BUNDLE`, `--gate`, `--junit`, `--redact` and `-o`."""
    parser.add_argument("bundle", metavar="BUNDLE|DIR", help="a .tar.gz, or a run folder")
    parser.add_argument(
        "--gate",
        action="append",
        default=[],
        metavar="G",
        help="judge by this gate instead of the plan's, such as 'hit_rate >= 0.85'; repeatable",
    )
    parser.add_argument("--junit", metavar="FILE", help="write the gates as JUnit XML")
    parser.add_argument(
        "--redact",
        action="store_true",
        help="judge nothing: write a copy without secrets to the file of -o",
    )
    parser.add_argument("-o", "--output", metavar="NEW.tar.gz", help="file for --redact")


def run(session: Session, options: argparse.Namespace) -> int:
    """Prints the report; the exit status is the verdict's."""
    if options.redact != (options.output is not None):
        raise Failure("usage", "cannot go on: --redact and -o need each other")
    if options.redact:
        return _redact(session, options)
    from soakd.bundle.reader import NotABundle
    from soakd.triage.triage import triage

    problems = _bad_gates(options.gate)
    if problems:
        raise Failure("usage", "cannot judge by these gates", problems=problems)
    try:
        document = triage(options.bundle, options.gate)
    except NotABundle as error:
        raise Failure("usage", str(error)) from None
    if options.junit is not None:
        _write_junit(options.junit, document)
    if session.json:
        session.emit(document)
    else:
        from soakd.triage import text

        session.say("\n".join(text.lines(document)))
    return exit_of_verdict(document["verdict"])


def _bad_gates(gates: list[str]) -> list[str]:
    """What is wrong with the gates, all of them at once."""
    from soakd.core.gates import parse_gate

    problems = []
    for gate in gates:
        try:
            parse_gate(gate)
        except ValueError as error:
            problems.append(f"{gate}: {error}")
    return problems


def _write_junit(path: str, document: dict[str, object]) -> None:
    from soakd.triage.junit import junit_xml

    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(junit_xml(document))
    except OSError as error:
        raise Failure("usage", f"cannot write {path}: {error.strerror}") from None


def _redact(session: Session, options: argparse.Namespace) -> int:
    """Writes the clean copy and prints its path."""
    from soakd.bundle.clean import CannotRedactError, redact_tarball

    if options.gate or options.junit is not None:
        raise Failure("usage", "cannot judge and redact at once: leave out --gate and --junit")
    try:
        report = redact_tarball(options.bundle, options.output)
    except CannotRedactError as error:
        raise Failure("usage", str(error)) from None
    for note in report.notes:
        session.note(safe(note))
    if session.json:
        session.emit(
            {
                "path": options.output,
                "members": report.members,
                "left_out": report.left_out,
                "secrets": report.secrets,
                "notes": list(report.notes),
            }
        )
    else:
        session.note(
            f"{report.members} members, {report.left_out} left out (MANIFEST.json names them),"
            f" {report.secrets} secrets masked"
        )
        session.say(safe(options.output))
    return 0
