"""Verdicts as JUnit XML, so that any build server shows a broken budget as a failed test."""

from collections.abc import Iterable
from xml.etree import ElementTree

from edgepack.report import units, views
from edgepack.results import BuildResult, TargetResult, Verdict


def render(result: BuildResult) -> str:
    """Return one test suite a target: a case for each limit of its chosen, or nearest, candidate.

    A limit that is over, undecided or not measured is a failure; a dropped candidate is a skipped case;
    a target that no candidate could be judged for has one failing case that says why.
    """
    return _document(result.name, [_target_suite(result, target) for target in result.targets])


def render_verdicts(name: str, verdicts: tuple[Verdict, ...]) -> str:
    """Return one test suite called `name` with a case for each verdict."""
    return _document(name, [_suite(name, [_limit_case(name, verdict) for verdict in verdicts])])


def _target_suite(result: BuildResult, target: TargetResult) -> ElementTree.Element:
    shown = views.shown_candidate(target)
    if shown is None:
        case = _case(target.target, "a candidate that can be judged")
        _fail(case, "no candidate", target.why)
        cases = [case]
    else:
        owner = f"{target.target}.{views.candidate_name(shown)}"
        cases = [_limit_case(owner, verdict) for verdict in shown.verdicts]
    for dropped in target.dropped:
        case = _case(target.target, f"{dropped.recipe} {dropped.format}")
        message = units.printable(f"dropped ({dropped.runtime}): {dropped.reason}")
        ElementTree.SubElement(case, "skipped", message=message)
        cases.append(case)
    suite = _suite(target.target, cases)
    suite.set("timestamp", units.printable(result.finished_at))
    return suite


def _limit_case(owner: str, verdict: Verdict) -> ElementTree.Element:
    case = _case(owner, f"{units.limit_words(verdict.limit)} {units.allowed(verdict)}")
    if verdict.status != "within":
        note = f" ({verdict.note})" if verdict.note else ""
        found = units.with_error(verdict)
        _fail(case, verdict.status, f"found {found}, allowed {units.allowed(verdict)}{note}")
    return case


def _case(owner: str, name: str) -> ElementTree.Element:
    # Build servers split class names at full stops only, so a blank in them is harmless.
    return ElementTree.Element(
        "testcase", classname=units.printable(f"edgepack.{owner}"), name=units.printable(name)
    )


def _fail(case: ElementTree.Element, status: str, message: str) -> None:
    failure = ElementTree.SubElement(case, "failure", type=status, message=units.printable(message))
    failure.text = units.printable(f"{status}: {message}")


def _suite(name: str, cases: list[ElementTree.Element]) -> ElementTree.Element:
    suite = ElementTree.Element("testsuite", {"name": units.printable(name), **_totals(cases)})
    suite.extend(cases)
    return suite


def _document(name: str, suites: list[ElementTree.Element]) -> str:
    totals = _totals(case for suite in suites for case in suite)
    root = ElementTree.Element("testsuites", {"name": units.printable(name), **totals})
    root.extend(suites)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _totals(cases: Iterable[ElementTree.Element]) -> dict[str, str]:
    every = list(cases)
    counts = {
        "tests": len(every),
        "failures": sum(case.find("failure") is not None for case in every),
        "errors": 0,
        "skipped": sum(case.find("skipped") is not None for case in every),
    }
    return {key: str(number) for key, number in counts.items()}
