"""The reference names everything that there is, and nothing else."""

import argparse
import inspect
import re
import subprocess
import sys
from typing import Any, Final

import asyncpg
import pytest

import pgchannels
from pgchannels import MessageLayer, embedded, starlette
from pgchannels.cli import add_database_commands
from pgchannels.cli.demo import add_demo_command
from pgchannels.codec import Codec
from pgchannels.django import PostgresChannelLayer
from tests.support.snippets import PLACEHOLDER, ROOT, first_column, snippet, snippets

REFERENCE: Final = ROOT / "docs/reference"
OPTIONS, MESSAGES, COMMANDS = (f"docs/reference/{name}.md" for name in ("options", "messages", "command-line"))
DEFAULTS: Final = (MessageLayer.__init__.__kwdefaults__ or {}) | (PostgresChannelLayer.__init__.__kwdefaults__ or {})


def documented() -> str:
    return "\n".join(path.read_text() for path in REFERENCE.glob("*.md"))


def test_every_public_name_is_in_the_reference() -> None:
    text = documented()
    assert [name for name in pgchannels.__all__ if name not in text] == []
    assert [name for name in embedded.__all__ if name not in text] == []
    public = [name for name, value in vars(starlette).items() if getattr(value, "__module__", "") == starlette.__name__]
    assert [name for name in public if not name.startswith("_") and f"pgchannels.starlette.{name}" not in text] == []


@pytest.mark.parametrize("option", sorted(DEFAULTS.keys() - {"database"}))
def test_every_option_is_in_its_table_with_its_default(option: str) -> None:
    rows = re.findall(rf"^\| `{option}` \| (?:`(.*?)`|none) \|", (ROOT / OPTIONS).read_text(), re.MULTILINE)
    assert (
        rows[0].strip('"') == {None: "", (): "[]"}.get(DEFAULTS[option], str(DEFAULTS[option]))
        or option == "channel_capacity"
    )


def test_every_option_in_the_tables_exists() -> None:
    known = {*DEFAULTS, *inspect.signature(MessageLayer.subscribe).parameters}
    assert set(first_column(OPTIONS)) <= known


def test_every_command_and_its_options_are_documented() -> None:
    commands = argparse.ArgumentParser().add_subparsers()
    add_demo_command(commands)
    add_database_commands(commands)
    text = (ROOT / COMMANDS).read_text()
    for name, parser in commands.choices.items():
        section = text.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        options = {word for action in parser._actions for word in action.option_strings} - {"-h", "--help"}
        assert set(re.findall(r"^\| `(--[\w-]+)` \|", section, re.MULTILINE)) == options


@pytest.mark.parametrize("arguments", [[], ["--version"]])
def test_command_alone_and_its_version(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "pgchannels", *arguments]
    run = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert run.stdout.startswith(f"pgchannels {pgchannels.__version__}\n" if arguments else "usage: pgchannels")


async def test_every_view_function_and_table_is_documented(connection: "asyncpg.Connection[Any]") -> None:
    text = (REFERENCE / "sql.md").read_text()
    views, _, rest = text.partition("\n## Functions\n")
    functions, _, tables = rest.partition("\n## Tables\n")
    found = await connection.fetch("SELECT proname FROM pg_proc WHERE pronamespace = 'pgchannels'::regnamespace")
    assert names(functions) == {row["proname"] for row in found}
    found = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'pgchannels'::regnamespace AND NOT relispartition"
        " AND relkind IN ('r', 'p')"
    )
    assert names(tables) == {row["relname"] for row in found}
    found = await connection.fetch(
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = 'pgchannels' AND table_name IN (SELECT viewname FROM pg_views)"
    )
    by_view: dict[str, set[str]] = {}
    for row in found:
        by_view.setdefault(row["table_name"], set()).add(row["column_name"])
    for view, columns in by_view.items():
        assert (
            names(views.partition(f"\n### {view}\n")[2].partition("\n### ")[0].partition("\nFor example")[0]) == columns
        )


async def test_query_on_the_queues(connection: "asyncpg.Connection[Any]") -> None:
    [query] = snippets("docs/reference/sql.md", "sql")
    assert await connection.fetch(query) == []


def names(table: str) -> set[str]:
    """Those in the first column."""
    cells = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", table, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"\w+", cell)}


def test_format_of_ones_own() -> None:
    exec(snippet(MESSAGES, "registry.register_serializer"), {})
    codec = Codec(serializer_format="pickled")
    assert codec.decode(codec.encode({1: 1j}, bound_to="")) == {1: 1j}


@pytest.mark.parametrize("page", ["layer", "embedded"])
def test_snippets_run(page: str) -> None:
    for block in snippets(f"docs/reference/{page}.md"):
        subprocess.run([sys.executable, "-W", "error", "-c", block], check=True, timeout=60, capture_output=True)


def test_example_of_the_start_page(database_url: str) -> None:
    script = snippet("docs/index.md", "asyncio.run").replace(PLACEHOLDER, database_url)
    command = [sys.executable, "-W", "error", "-c", script]
    run = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True)
    assert run.stdout == "news {'headline': 'rain'}\n"
