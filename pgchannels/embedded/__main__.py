"""`python -m pgchannels.embedded`: runs a server until stdin closes, SIGINT or SIGTERM; prints its URL on one line."""

import argparse
import signal
import sys
from contextlib import suppress

from pgchannels.embedded.server import EmbeddedServer


def main() -> None:
    """Serve until told to stop."""
    argparse.ArgumentParser(prog="python -m pgchannels.embedded", description=__doc__).parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background job ignores SIGINT otherwise
        signal.signal(number, signal.default_int_handler)
    with suppress(KeyboardInterrupt), EmbeddedServer() as server:
        sys.stdout.write(f"{server.url()}\n")
        sys.stdout.flush()
        while sys.stdin.readline():
            pass


if __name__ == "__main__":
    main()
