"""The page for troubleshooting knows every error and every line of the log."""

import ast
import re
from collections.abc import Iterator
from typing import Final

import pytest

import pgchannels
from pgchannels import GapReason, PgChannelsError
from tests.support.snippets import ROOT

PAGE: Final = (ROOT / "docs/how-to/troubleshooting.md").read_text()
REFERENCE: Final = (ROOT / "docs/reference/errors.md").read_text()
PUBLIC: Final = {name: getattr(pgchannels, name) for name in pgchannels.__all__}
ERRORS: Final = [
    name for name, kind in PUBLIC.items() if isinstance(kind, type) and PgChannelsError in kind.__mro__[1:]
]
_LOGGING: Final = {"warning", "error", "note_unreadable"}
_PLACE: Final = re.compile(r"%\w|\{\}")


def texts_in(source: str) -> Iterator[str]:
    """What is logged as a warning or an error, and what a retry says has failed."""
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        if isinstance(call.func, ast.Attribute) and call.func.attr in _LOGGING and call.args:
            yield from constants(call.args[0])
        yield from (text for word in call.keywords if word.arg == "what_failed" for text in constants(word.value))
    for assigned in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assign)):
        if isinstance(assigned.targets[0], ast.Name) and assigned.targets[0].id == "text" and "_bursts" in source:
            yield from constants(assigned.value)


def constants(node: ast.expr) -> Iterator[str]:
    """The text of a literal."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


LINES: Final = sorted(
    {
        text
        for path in (ROOT / "pgchannels").rglob("*.py")
        if "cli" not in path.parts and "admin" not in path.stem
        for text in texts_in(path.read_text())
    }
)


@pytest.mark.parametrize("error", ERRORS)
def test_page_explains_every_error(error: str) -> None:
    assert f"| `{error}`" in PAGE
    assert f"`{error}`" in REFERENCE


@pytest.mark.parametrize("reason", GapReason)
def test_page_explains_every_reason_of_a_loss(reason: GapReason) -> None:
    assert f"| `{reason}` |" in PAGE


def test_lines_of_the_log_are_found() -> None:
    assert "the listening connection was lost" in LINES
    assert "could not rotate the log" in LINES


@pytest.mark.parametrize("line", LINES)
def test_page_explains_every_line_of_the_log(line: str) -> None:
    words = [part.strip(" :;,") for part in _PLACE.split(line)]
    assert [part for part in words if part not in PAGE] == []
