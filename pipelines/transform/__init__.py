"""TensorFlow Transform: the preprocessing function, its Beam stage, and TFRecord shards of its rows."""
