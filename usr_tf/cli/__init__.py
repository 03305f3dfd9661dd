"""Console program `usr-tf`: `program` parses the command line; one file per subject defines the verbs."""

from usr_tf.cli.program import VERBS, main
from usr_tf.cli.verb import Verb

__all__ = ["VERBS", "Verb", "main"]
