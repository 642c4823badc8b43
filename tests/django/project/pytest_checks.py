"""What pytest-django runs in the project, in several processes: the same tests as functions."""

import pytest
from django.test import Client
from said import leave_much_behind, say_and_read

from pgchannels.django.testing import empty_channel_layers


@pytest.fixture(autouse=True)
def _empty_channel_layers(db: None) -> None:
    empty_channel_layers()


@pytest.mark.parametrize("number", range(4))
def test_each_reads_what_it_said_alone(client: Client, number: int) -> None:
    """Leaves more behind than it reads."""
    assert say_and_read(client, f"text {number}") == {"thumbnails": [f"text {number}"], "archive": [f"text {number}"]}
    leave_much_behind(client)


@pytest.mark.django_db(transaction=True)
def test_transactional_test_reads_what_it_said_alone(client: Client) -> None:
    """Leaves more behind than it reads."""
    assert say_and_read(client, "text") == {"thumbnails": ["text"], "archive": ["text"]}
    leave_much_behind(client)
