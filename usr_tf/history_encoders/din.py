"""DIN as history encoder: attention by an activation unit, the same in every scenario."""

import tensorflow as tf

from usr_tf.config import Config
from usr_tf.history_encoders.base import HistoryEncoder
from usr_tf.layers.din import DIN


class DINEncoder(HistoryEncoder):
    """`history.pooling=din` without `usr.ie`; the formula is that of `usr_tf.layers.DIN`."""

    part = "din"

    def __init__(self, config: Config, action_width: int):
        super().__init__(config, action_width)
        self.layer: DIN = DIN(config.history.din, name=self.part)

    def encode(self, item: tf.Tensor, history: tf.Tensor, mask: tf.Tensor, trigger: tf.Tensor | None) -> tf.Tensor:
        return tf.expand_dims(self.layer(item, history, mask), 1)

    def serve(self, item: tf.Tensor, history: tf.Tensor, mask: tf.Tensor, trigger: tf.Tensor | None) -> tf.Tensor:
        return self.layer.serve(item, history, mask)

    def attention(self, item: tf.Tensor, history: tf.Tensor, mask: tf.Tensor, trigger: tf.Tensor | None) -> tf.Tensor:
        return self.layer.attention(item, history, mask)[:, tf.newaxis, tf.newaxis]
