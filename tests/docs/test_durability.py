"""The page on durability: its command runs, and its URL is obeyed."""

import asyncpg
import pytest

from pgchannels import MessageLayer
from pgchannels.cli import main
from tests.support.snippets import commands, snippet
from tests.support.waiting import within

PAGE = "docs/how-to/durability.md"


def test_command(owner_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    [command] = commands(PAGE)
    assert main([*command[1:-1], owner_url]) == 0
    assert "The log is durable:" in capsys.readouterr().out


async def test_url_sets_what_a_commit_waits_for(
    owner_url: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    [_, options] = snippet(PAGE, "synchronous_commit%3D", "text").strip().split("?")
    await connection.execute("CREATE TABLE seen (level text)")
    await connection.execute(
        "CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO public.seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;"
        "CREATE TRIGGER see AFTER INSERT ON pgchannels.message FOR EACH STATEMENT EXECUTE FUNCTION see()"
    )
    for level in ("on", "local", "off"):
        async with MessageLayer(f"{owner_url}&{options.replace('Don', 'D' + level)}") as layer:
            await within(layer.publish("room", level))
    rows = await connection.fetch("SELECT level FROM seen")
    assert [level for (level,) in rows] == ["on", "local", "off"]
