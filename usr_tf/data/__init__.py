"""Training data as `tf.data`: datasets of a data directory, and the parsing of their rows."""

from usr_tf.data.datasets import Data, Labels, Split, open_data, vocabulary_sizes
from usr_tf.data.parsing import Features

__all__ = ["Data", "Features", "Labels", "Split", "open_data", "vocabulary_sizes"]
