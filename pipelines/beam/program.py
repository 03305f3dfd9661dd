"""Jobs as Beam programs: `python -m pipelines.preprocess` is `usr-tf preprocess` with Beam's options inline."""

import importlib
import sys
from typing import NoReturn


def run_verb(verb: str) -> NoReturn:
    """Runs a verb of `usr-tf` on `sys.argv` and exits; flags that the verb lacks go to Beam.

    The command line is above the pipelines, so it is imported by name, and only here, by the program itself.
    """
    sys.argv.insert(1, verb)
    sys.exit(importlib.import_module("usr_tf.cli").main(beam_program=True))
