"""The sequence of faults."""

from itertools import islice

from tests.chaos.faults import Fault, Kind, faults
from tests.chaos.servers import OwnServers, PatroniServers

KINDS = {**OwnServers.kinds, **PatroniServers.kinds}


def first_faults(seed: str, *only: Kind) -> list[Fault]:
    return list(islice(faults(seed, KINDS, only), 300))


def test_same_seed_gives_the_same_faults_and_another_seed_others() -> None:
    assert first_faults("1") == first_faults("1") != first_faults("2")


def test_every_kind_of_fault_happens() -> None:
    assert {fault.kind for fault in first_faults("1")} == set(Kind)


def test_chosen_kinds_happen_alone() -> None:
    assert {fault.kind for fault in first_faults("1", Kind.CUT, Kind.STOP)} == {Kind.CUT, Kind.STOP}
