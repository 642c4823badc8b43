"""Code blocks of the documents, to be run."""

import re
import shlex
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PLACEHOLDER: Final = "postgresql://user:password@localhost/mydb"
_FILE: Final = re.compile(
    r"(?:[Ss]ave this as|(?P<end>At the end of)) `(?P<name>[\w./]+)`[^:`]*:\n\n```\w+\n(?P<text>.*?)```", re.DOTALL
)
# What a test stands for itself: it has an environment, a database, and a terminal for each program.
_PREPARATION: Final = re.compile(
    r"mkdir |git clone |python3 -m venv |\. |export |pip install |python -m pgchannels\.embedded|docker "
)


def snippets(document: str, language: str = "python") -> list[str]:
    """The code blocks of a document in one language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / document).read_text(), flags=re.DOTALL)


def snippet(document: str, containing: str, language: str = "python") -> str:
    """The one code block with this text."""
    [found] = [block for block in snippets(document, language) if containing in block]
    return found


def write_files(document: str, folder: Path) -> set[str]:
    """Write the files that a page tells its readers to save, or to append to; returns the code blocks."""
    blocks = set()
    for match in _FILE.finditer((ROOT / document).read_text()):
        path = folder / match["name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text((path.read_text() if match["end"] else "") + match["text"])
        blocks.add(match["text"])
    return blocks


def commands(document: str) -> list[list[str]]:
    """The commands of a page, in order, without those that prepare a machine."""
    blocks = [block.replace("\\\n", "") for block in snippets(document, "sh")]
    lines = [line for block in blocks for line in ([block] if '"\n' in block else block.splitlines())]
    return [shlex.split(line) for line in lines if not _PREPARATION.match(line)]


def first_column(document: str) -> list[str]:
    """The names in the first column of the tables, one by one."""
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", (ROOT / document).read_text(), flags=re.MULTILINE)
    return [name for row in rows for name in re.findall(r"\w+", row)]
