"""A/B tests of exported models on the simulated shop, continued after the month of its logs (docs/abtest.md).

`models` loads what TF Serving would, `history` and `requests` make what a client would send, `policies` and `arms` turn
scores into slates of known probability, `replay` plays an arm, `outcomes` counts what its users did, `inference` and
`peeking` say what that proves, `off_policy` guesses it from another arm's logs, `run` does all of it, `page` and
`terminal` show it.
"""

from usr_tf.experiments.abtest.abtest_text import format_table
from usr_tf.experiments.abtest.experiment import Settings, abtest

__all__ = ["Settings", "abtest", "format_table"]
