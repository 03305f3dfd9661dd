"""History encoders: what a model reads of a user's history, by their name in the configuration.

A further encoder is a file here with a `HistoryEncoder`, its name in `usr_tf.config.Pooling`, and a line in
`HISTORY_ENCODERS`.
"""

from usr_tf.config import Config, Pooling
from usr_tf.history_encoders.base import HistoryEncoder
from usr_tf.history_encoders.din import DINEncoder
from usr_tf.history_encoders.interest_extractor import InterestExtractorEncoder
from usr_tf.history_encoders.mean import MeanEncoder

HISTORY_ENCODERS: dict[Pooling, type[HistoryEncoder]] = {
    "mean": MeanEncoder,
    "din": DINEncoder,
}
"""Encoders by `history.pooling`, which `usr.ie` overrides."""

__all__ = ["HISTORY_ENCODERS", "HistoryEncoder", "InterestExtractorEncoder", "make_history_encoder"]


def make_history_encoder(config: Config, action_width: int) -> HistoryEncoder:
    """History encoder named by `config`, for actions of a width."""
    encoder = InterestExtractorEncoder if config.usr.ie else HISTORY_ENCODERS[config.history.pooling]
    return encoder(config, action_width)
