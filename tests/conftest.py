"""Options of the whole test suite, and what it says at its end."""

from collections.abc import Callable

import pytest

WHERE = ("hardware", "qemu", "emulated")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden texts anew instead of comparing")


@pytest.fixture
def ran(record_property: Callable[[str, object], None]) -> Callable[[str, str], None]:
    """Note that an instruction was run, and where: on `hardware`, under `qemu`, or `emulated` by its loops."""

    def note(name: str, where: str) -> None:
        assert where in WHERE
        record_property("instruction", (name, where))

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say where each instruction was run, if any was."""
    places: dict[str, set[str]] = {}
    for report in terminalreporter.stats.get("passed", []):
        for key, value in report.user_properties:
            if key == "instruction":
                places.setdefault(value[0], set()).add(value[1])
    if not places:
        return
    from sparsec.schedules.intrinsics import INSTRUCTIONS

    terminalreporter.section("where instructions were run")
    width = max(map(len, {*INSTRUCTIONS, *places}))
    for name in sorted({*INSTRUCTIONS, *places}):
        found = ", ".join(place for place in WHERE if place in places.get(name, ()))
        terminalreporter.write_line(f"{name:{width}}  {found or 'not run'}")
