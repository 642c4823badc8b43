"""Fails where the type of a public name is not complete: `pyright --verifytypes pgchannels --outputjson | python …`."""

import json
import sys
from typing import Final

# Django finds these by their names, and nobody imports them.
NOT_FOR_USERS: Final = ("pgchannels.django.admin", "pgchannels.django.models", "pgchannels.django.management")


def main() -> int:
    """Print the names, with what pyright says of them; 0 when there is none."""
    symbols = json.load(sys.stdin)["typeCompleteness"]["symbols"]
    incomplete = [symbol for symbol in symbols if symbol["isExported"] and not symbol["isTypeKnown"]]
    incomplete = [symbol for symbol in incomplete if not symbol["name"].startswith(NOT_FOR_USERS)]
    for symbol in incomplete:
        print(symbol["name"], *[diagnostic["message"] for diagnostic in symbol["diagnostics"]], sep="\n    ")
    return 1 if incomplete or not symbols else 0


if __name__ == "__main__":
    sys.exit(main())
