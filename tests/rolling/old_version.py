"""The version before this one, as it was committed: its package runs in processes of its own."""

import os
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Final
from zipfile import ZipFile

ROOT: Final = Path(__file__).parents[2]
# The last commit before the revisions that follow 0001; the last release takes its place once there is one.
COMMIT: Final = "e3abaf608e6eb260f5823a892f50710a404eb76d"


def unpack(folder: Path) -> Path:
    """Write its package and its revisions into a folder, and return that as an entry of PYTHONPATH."""
    command = ["git", "-c", "safe.directory=*", "archive", "--format=zip", COMMIT, "pgchannels", "alembic"]
    archived = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert archived.returncode == 0, f"this needs a clone with history: {archived.stderr.decode()}"
    with ZipFile(BytesIO(archived.stdout)) as archive:
        archive.extractall(folder)
    return folder


def environment(package: Path) -> dict[str, str]:
    """The environment of a process that imports pgchannels from there."""
    return os.environ | {"PYTHONPATH": str(package), "DJANGO_SETTINGS_MODULE": "", "PYTHONDONTWRITEBYTECODE": "1"}
