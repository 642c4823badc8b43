"""Code blocks of the documents, to be run."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLACEHOLDER = "postgresql://user:password@localhost/mydb"


def snippets(document: str, language: str = "python") -> list[str]:
    """The code blocks of a document in one language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / document).read_text(), flags=re.DOTALL)


def snippet(document: str, containing: str, language: str = "python") -> str:
    """The one code block with this text."""
    [found] = [block for block in snippets(document, language) if containing in block]
    return found


def first_column(document: str) -> list[str]:
    """The names in the first column of the tables, one by one."""
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", (ROOT / document).read_text(), flags=re.MULTILINE)
    return [name for row in rows for name in re.findall(r"\w+", row)]
