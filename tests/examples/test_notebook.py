"""The cells, by the command of their README."""

import re

from tests.support.programs import EXAMPLES, commands_of, run, running

FOLDER = EXAMPLES / "notebook"
UPGRADE, CELLS = commands_of("notebook")
PRINTED = [
    *(rf"\d\d:\d\d:\d\d \d+-\d+ {{'celsius': {celsius}}}" for celsius in (19.5, 20.0, 20.5)),
    r"the topic stands at \d+-\d+",
    r"after it: \[21\.0, 21\.5\]",
    *(rf"received {{'celsius': {celsius}}}" for celsius in (21.0, 21.5, 22.0, 22.5)),
    r"resume from \d+-\d+",
]


def test_cells_print_the_past_and_what_is_live(empty_database_url: str) -> None:
    environment = {"PGCHANNELS_URL": empty_database_url, "PYTHONWARNINGS": "error"}
    run(UPGRADE, folder=FOLDER, environment=environment)
    printed = run(CELLS, folder=FOLDER, environment=environment).splitlines()
    assert len(printed) == len(PRINTED)
    for line, pattern in zip(printed, PRINTED, strict=True):
        assert re.fullmatch(pattern, line), f"{line!r} is not {pattern!r}"


def test_cell_that_fails_is_named_with_its_line() -> None:
    lines = (FOLDER / "look_back.py").read_text().splitlines()
    number = next(number for number, line in enumerate(lines, start=1) if 'os.environ["PGCHANNELS_URL"]' in line)
    with running(CELLS, folder=FOLDER, environment={"PGCHANNELS_URL": "nowhere"}) as program:
        assert program.end() == 1
    assert f'look_back.py", line {number}, in <module>' in program.text()
