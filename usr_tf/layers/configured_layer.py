"""Base class of layers whose `get_config` follows from their constructor."""

import inspect
from collections.abc import Sequence
from typing import Any

import tf_keras as keras


class ConfiguredLayer(keras.layers.Layer):
    """A layer whose configuration is the arguments of its constructor, each kept in an attribute of the same name.

    Arguments of a private base class, such as `_Dense`, are no part of the configuration: its subclasses set them.
    """

    def get_config(self) -> dict[str, Any]:
        names = {
            name
            for kind in type(self).__mro__
            if issubclass(kind, ConfiguredLayer) and "__init__" in vars(kind) and not kind.__name__.startswith("_")
            for name, parameter in inspect.signature(kind.__init__).parameters.items()
            if name != "self" and parameter.kind is not parameter.VAR_KEYWORD
        }
        return {**super().get_config(), **{name: _plain(getattr(self, name)) for name in sorted(names)}}


def _plain(value: Any) -> Any:
    """As JSON holds it."""
    if isinstance(value, keras.regularizers.Regularizer):
        return keras.regularizers.serialize(value)
    if callable(value):
        return keras.activations.serialize(value)
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
