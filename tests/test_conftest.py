"""Isolation of tests: process-wide settings end with the test."""

import logging

import pytest

from usr_tf.cli import main


@pytest.mark.parametrize("turn", ["first", "second"])
def test_the_levels_that_a_command_sets_end_with_its_test(turn, tmp_path, capsys):
    assert logging.getLogger("serving").level == logging.NOTSET
    assert main(["serve", f"--model={tmp_path}"]) == 2
    assert logging.getLogger("serving").level == logging.INFO
