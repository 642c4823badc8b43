"""Runs a file of cells as a notebook does, one after another in one event loop: `python run.py look_back.py`."""

import ast
import asyncio
import inspect
import re
import sys
from pathlib import Path
from typing import Any

CELL = re.compile(r"^(?=# %%)", re.MULTILINE)


async def run(path: Path, text: str) -> None:
    """Run the cells; what one defines, the next ones know."""
    names: dict[str, Any] = {"__name__": "__main__"}
    lines_before = 0
    for cell in CELL.split(text):
        # Empty lines in front, so that a traceback names the right one.
        code = compile("\n" * lines_before + cell, path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, names)  # noqa: S307 -- a file of the user's own
        if inspect.isawaitable(result):
            await result
        lines_before += cell.count("\n")


if __name__ == "__main__":
    path = Path(sys.argv[1])
    asyncio.run(run(path, path.read_text()))
