"""Layers of USR and of its backbones."""

from usr_tf.layers.contrastive import ContrastiveLoss, SummedLoss
from usr_tf.layers.dense import ExpertStack, ScenarioDense, SplitDense, StackedDense
from usr_tf.layers.din import DIN
from usr_tf.layers.dynamic_dense import DynamicDense
from usr_tf.layers.feature_generator import FeatureGenerator
from usr_tf.layers.gate_unit import GateUnit
from usr_tf.layers.global_label import GlobalLabelHeads, LogProbabilities
from usr_tf.layers.interest_extractor import InterestExtractor
from usr_tf.layers.log_space import binary_cross_entropy, log1mexp
from usr_tf.layers.meta_unit import MetaUnit
from usr_tf.layers.partitioned_norm import PartitionedNormalization
from usr_tf.layers.piecewise_linear import PiecewiseLinear
from usr_tf.layers.position import PositionTower
from usr_tf.layers.star_network import StarNetwork

__all__ = [
    "DIN",
    "ContrastiveLoss",
    "DynamicDense",
    "ExpertStack",
    "FeatureGenerator",
    "GateUnit",
    "GlobalLabelHeads",
    "InterestExtractor",
    "LogProbabilities",
    "MetaUnit",
    "PartitionedNormalization",
    "PiecewiseLinear",
    "PositionTower",
    "ScenarioDense",
    "SplitDense",
    "StackedDense",
    "StarNetwork",
    "SummedLoss",
    "binary_cross_entropy",
    "log1mexp",
]
