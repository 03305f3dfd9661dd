"""Interest extractor (IE) as history encoder: attention with projections of the scenario."""

import tensorflow as tf

from usr_tf.config import Config
from usr_tf.errors import InputError
from usr_tf.history_encoders.base import HistoryEncoder
from usr_tf.layers.interest_extractor import InterestExtractor


class InterestExtractorEncoder(HistoryEncoder):
    """USR's encoder, with `usr.ie`; the formula is that of `usr_tf.layers.InterestExtractor`.

    Raises:
      InputError: `usr.heads` do not divide the width of an action.
    """

    part = "interest_extractor"
    reads_trigger = True
    has_product = True

    def __init__(self, config: Config, action_width: int):
        super().__init__(config, action_width)
        usr = config.usr
        if action_width % usr.heads:
            expected = f"a divisor of {action_width}, the width of an action of the history"
            raise InputError("usr.heads", str(usr.heads), expected)
        self.layer: InterestExtractor = InterestExtractor(usr.rank, usr.trigger_hidden, usr.heads, name=self.part)

    def encode(self, item: tf.Tensor, history: tf.Tensor, mask: tf.Tensor, trigger: tf.Tensor | None) -> tf.Tensor:
        return self.layer(item, history, mask, trigger)

    def serve(self, item: tf.Tensor, history: tf.Tensor, mask: tf.Tensor, trigger: tf.Tensor | None) -> tf.Tensor:
        return self.layer.serve(item, history, mask, trigger)

    def attention(self, item: tf.Tensor, history: tf.Tensor, mask: tf.Tensor, trigger: tf.Tensor | None) -> tf.Tensor:
        return self.layer.attention(item, history, mask, trigger)
