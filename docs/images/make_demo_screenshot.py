"""Makes demo.png beside this file: four people talk in `pgchannels demo`, and somebody changes a row by SQL.

Two of their windows stand side by side.

    python docs/images/make_demo_screenshot.py [dark]

Needs `pgchannels[demo]`, playwright and a Chromium on the PATH.
"""

import base64
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

IMAGE = Path(__file__).with_name("demo.png")
PORT = 8000
Scheme = Literal["light", "dark"]
WINDOW = ViewportSize(width=672, height=706)
CONVERSATION = [
    ("Ada", "Hi! Which server are you on?"),
    ("Grace", "Django. And yours says FastAPI"),
    ("Radia", "So which broker runs between the two?"),
    ("Alan", "None. Just the PostgreSQL we have"),
    ("Grace", "One commit, and everybody reads it"),
    ("Radia", "I reconnected, and nothing is missing"),
    ("Ada", "And an UPDATE in psql shows at once"),
]
SERVER_OF = {"Ada": 0, "Alan": 0, "Grace": 1, "Radia": 1}
COMPOSITION = """
<style>
  body {{ margin: 0; width: 1400px; height: 800px; display: flex; gap: 20px; padding: 18px; box-sizing: border-box;
         background: linear-gradient(115deg, #0b7d72, #26506f 50%, #5a48d6);
         font: 13px "Liberation Sans", sans-serif; }}
  figure {{ margin: 0; width: 672px; border-radius: 12px; overflow: hidden; box-shadow: 0 12px 40px #0006; }}
  figcaption {{ height: 58px; box-sizing: border-box; display: flex; align-items: center; gap: 8px; padding: 0 16px;
               background: {bar}; color: {ink}; }}
  i {{ width: 12px; height: 12px; border-radius: 50%; background: {dot}; }}
  b {{ flex: 1; margin-left: 8px; padding: 8px 14px; border-radius: 99px; background: {field}; font-weight: 400; }}
  img {{ display: block; width: 672px; height: 706px; }}
</style>
{figures}
"""
FIGURE = "<figure><figcaption><i></i><i></i><i></i><b>{address}</b></figcaption><img src='{image}'></figure>"
COLOURS: dict[Scheme, dict[str, str]] = {
    "light": {"bar": "#dfe3ea", "ink": "#3d4452", "dot": "#b4bbc8", "field": "#fff"},
    "dark": {"bar": "#1d2129", "ink": "#b9c0ce", "dot": "#454c5a", "field": "#0e1014"},
}


def main(scheme: Scheme = "light") -> None:
    """Make the image."""
    with running_demo() as (addresses, command), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        pages = {name: join(browser, addresses[SERVER_OF[name]], name, scheme) for name in SERVER_OF}
        converse(pages)
        change_row(pages, command)
        windows = [(pages["Ada"], "Ada"), (pages["Grace"], "Grace")]
        figures = [figure(page, f"{addresses[SERVER_OF[name]]}?room=lobby&name={name}") for page, name in windows]
        compose(browser, "".join(figures), scheme)
        browser.close()


@contextmanager
def running_demo() -> Iterator[tuple[list[str], str]]:
    """The addresses of the two servers, and the command that changes a row."""
    command = [sys.executable, "-m", "pgchannels", "demo", "--no-browser", f"--port={PORT}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as demo:  # noqa: S603 -- this interpreter
        try:
            assert demo.stdout is not None
            lines = list(iter(demo.stdout.readline, "Ctrl-C stops everything.\n"))
            [command] = [line.strip() for line in lines if "UPDATE" in line]
            yield [f"http://127.0.0.1:{PORT}/", f"http://127.0.0.1:{PORT + 1}/"], command
        finally:
            demo.send_signal(signal.SIGINT)
            demo.communicate(timeout=30)


def join(browser: Browser, address: str, name: str, scheme: Scheme) -> Page:
    """A window of somebody who has joined the room."""
    context = browser.new_context(viewport=WINDOW, color_scheme=scheme, locale="en-GB", reduced_motion="reduce")
    page = context.new_page()
    page.goto(f"{address}?room=lobby&name={name}")
    page.add_style_tag(content="body { font-family: 'Liberation Sans', sans-serif }")  # the same on every machine
    page.wait_for_selector("[data-state=connected]")
    return page


def converse(pages: dict[str, Page]) -> None:
    """Everybody says their lines in turn and reads all the others'."""
    for number, (name, text) in enumerate(CONVERSATION, start=1):
        pages[name].fill("#text", text)
        for page in pages.values():
            page.evaluate("new Promise(idle => requestIdleCallback(idle))")  # nobody types while another page draws
        pages[name].press("#text", "Enter")
        for page in pages.values():
            page.wait_for_selector(f".message >> nth={number - 1}")
    for page in pages.values():
        page.wait_for_function("document.getElementById('count').textContent === '4'")


def change_row(pages: dict[str, Page], command: str) -> None:
    """Somebody pastes the command into a terminal, and all pages show the row, still marked."""
    for page in pages.values():
        page.add_style_tag(content="#orders .changed td { background: var(--tone-soft) }")  # motion is reduced
    subprocess.run(shlex.split(command), check=True, stdout=subprocess.DEVNULL)  # noqa: S603 -- what the demo shows
    for page in pages.values():
        page.wait_for_selector("#orders .changed")


def figure(page: Page, address: str) -> str:
    """A window as an element of the composition."""
    image = base64.b64encode(page.screenshot()).decode()
    return FIGURE.format(address=address.removeprefix("http://"), image=f"data:image/png;base64,{image}")


def compose(browser: Browser, figures: str, scheme: Scheme) -> None:
    """Both windows in one image."""
    page = browser.new_page(viewport={"width": 1400, "height": 800})
    page.set_content(COMPOSITION.format(figures=figures, **COLOURS[scheme]))
    page.screenshot(path=IMAGE)


if __name__ == "__main__":
    main("dark" if "dark" in sys.argv else "light")
