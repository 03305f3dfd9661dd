"""The console program `usr-tf`. `program` reads the command line; the verbs are in a file for each subject."""

from usr_tf.cli.program import VERBS, main
from usr_tf.cli.verb import Verb

__all__ = ["VERBS", "Verb", "main"]
