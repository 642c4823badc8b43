"""Payloads and stored bytes that could crash the process, block it, or fill its memory: each check has its own."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 240  # each takes a few


@pytest.mark.parametrize(
    "check",
    [
        "what_is_sent_arrives",
        "each_odd_value_arrives",
        "each_refused_value_is_named_with_its_place",
        "json_refuses_what_it_does_not_have",
        "two_hundred_levels_arrive_and_one_more_is_refused",
        "any_depth_is_refused_at_once",
        "hostile_bytes_are_a_value_or_unreadable",
        "hostile_bytes_fit_into_a_small_stack_of_any_recursion_limit",
        "deeper_than_what_is_sent_is_unreadable",
        "everything_that_is_read_can_be_sent",
        "full_stack_is_an_error_of_ours",
        "any_bytes_are_a_value_or_unreadable",
        "other_libraries_messages_are_a_value_or_unreadable",
    ],
)
def test_codec_in_a_process_of_its_own(check: str) -> None:
    command = [sys.executable, "-W", "error", "-X", "faulthandler", "-m", "tests.unit.codec_checks", check]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
    assert ended.returncode == 0, ended.stderr[-4000:]
