"""Verbs that compare models: grids of runs, tuning, A/B tests."""

from usr_tf.cli.verb import Verb

VERBS: dict[str, Verb] = {}
