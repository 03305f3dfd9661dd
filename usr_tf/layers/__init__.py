"""The layers that USR is made of."""

from usr_tf.layers.contrastive import ContrastiveLoss, SummedLoss
from usr_tf.layers.dense import ExpertStack, ScenarioDense, SplitDense, StackedDense
from usr_tf.layers.feature_generator import FeatureGenerator
from usr_tf.layers.global_label import GlobalLabelHeads, LogProbabilities
from usr_tf.layers.interest_extractor import InterestExtractor
from usr_tf.layers.log_space import binary_cross_entropy, log1mexp

__all__ = [
    "ContrastiveLoss",
    "ExpertStack",
    "FeatureGenerator",
    "GlobalLabelHeads",
    "InterestExtractor",
    "LogProbabilities",
    "ScenarioDense",
    "SplitDense",
    "StackedDense",
    "SummedLoss",
    "binary_cross_entropy",
    "log1mexp",
]
