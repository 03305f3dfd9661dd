"""Backbones: multi-scenario, multi-task networks, by their name in the configuration.

A further backbone is a file here with a `Backbone`, its name in `usr_tf.config.BackboneName` with a section of its
sizes, whose keys are its constructor's, and a line in `BACKBONES`.
"""

from usr_tf.backbones.apg import APG
from usr_tf.backbones.base import Backbone, BackboneOutput
from usr_tf.backbones.m2m import M2M
from usr_tf.backbones.mmoe import MMoE
from usr_tf.backbones.pepnet import PEPNet
from usr_tf.backbones.ple import PLE
from usr_tf.backbones.shared_bottom import SharedBottom
from usr_tf.backbones.star import STAR
from usr_tf.config import BackboneName, Config

BACKBONES: dict[BackboneName, type[Backbone]] = {
    "shared_bottom": SharedBottom,
    "mmoe": MMoE,
    "ple": PLE,
    "star": STAR,
    "m2m": M2M,
    "apg": APG,
    "pepnet": PEPNet,
}

__all__ = ["BACKBONES", "Backbone", "BackboneOutput", "make_backbone"]


def make_backbone(config: Config, scenarios: int, tasks: int) -> Backbone:
    """Backbone named by `config`, for a number of scenarios and tasks."""
    sizes = config.sizes.model_dump()
    return BACKBONES[config.backbone](scenarios, tasks, config.usr.glmt, l2=config.train.l2, **sizes)
