"""What the documents say about performance is what was measured, their command runs, and no link leads nowhere."""

import json
import re
import statistics
import subprocess
import sys
from typing import Final

import pytest

from .snippets import PLACEHOLDER, ROOT, snippet

DOCUMENTS: Final = sorted(
    str(path.relative_to(ROOT))
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md"))
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
