"""What the documents say about performance is what was measured, their command runs, and no link leads nowhere."""

import json
import re
import statistics
import subprocess
import sys
from typing import Final

import pytest

from tests.support.snippets import PLACEHOLDER, ROOT, snippet, snippets

DOCUMENTS: Final = sorted(
    str(path.relative_to(ROOT))
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md"))
)
REPOSITORY: Final = (
    r"https://(?:github\.com/pgchannels/pgchannels/blob|raw\.githubusercontent\.com/pgchannels/pgchannels)/main/"
)
RECORD: Final = json.loads((ROOT / "docs/benchmarks/record.json").read_text())
LAYERS: Final = ("pgchannels", "redis-pubsub", "redis-core", "channels-postgres")
ROWS: Final = {
    "100 senders, one process": ("throughput-200-one", "rate"),
    "100 senders, receiver in another process": ("throughput-200-two", "rate"),
    "8 threads without an event loop": ("threads-sync", "rate"),
    "one sender, call to delivery, median": ("latency-200-one", "p50"),
    "one message to a group of 10,000 in the process": ("fan-out-10000", "last"),
}


def measured(work: str, layer: str, figure: str) -> str:
    """A figure of the recorded run, as README writes it."""
    done = RECORD["works"][work].get(layer, {"missing": "", "values": {}})
    if done["missing"] is not None:
        return str(done["missing"]).replace("took ", "")
    median = statistics.median(done["values"][figure])
    if figure == "rate":
        return f"{median:,.0f}/s"
    return f"{median * 1000:.2f} ms" if median < 0.01 else f"{median * 1000:.0f} ms"


@pytest.mark.parametrize("row", ROWS)
def test_figures_of_the_readme_are_those_of_the_recorded_run(row: str) -> None:
    [line] = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith(f"| {row} |")]
    cells = [cell.strip() for cell in line.split("|")[2:-1]]
    work, figure = ROWS[row]
    assert cells == [measured(work, layer, figure) for layer in LAYERS]


def test_bench_command(database_url: str) -> None:
    command = snippet("docs/performance.md", "pgchannels bench", "sh").replace(PLACEHOLDER, database_url).split()
    command[:1] = [sys.executable, "-m", "pgchannels"]
    run = subprocess.run([*command, "--seconds", "0.2"], check=True, capture_output=True, text=True, timeout=120)
    assert "messages/s" in run.stdout


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files_that_are_there(document: str) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", (ROOT / document).read_text())
    missing = [link for link in links if "://" not in link and not (ROOT / document).parent.joinpath(link).exists()]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS)
def test_absolute_links_into_this_repository_lead_to_files_that_are_there(document: str) -> None:
    paths = re.findall(rf"{REPOSITORY}([^)#\s]+)", (ROOT / document).read_text())
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_links_of_the_readme_hold_on_a_package_index() -> None:
    links = re.findall(r"\]\(([^)\s]+)", (ROOT / "README.md").read_text())
    assert [link for link in links if not link.startswith("https://")] == []


@pytest.mark.parametrize("document", [document for document in DOCUMENTS if document.startswith("docs/")])
def test_every_page_of_python_has_tests(document: str) -> None:
    """A page whose snippets nobody runs has none."""
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    name = document.removesuffix(".md").rpartition("/")[2]
    assert not snippets(document) or re.search(rf"\b{name}\b", tests)
