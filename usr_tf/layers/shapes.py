"""Shape checks at trace time on static shapes, at no cost in a graph."""

import tensorflow as tf


def check_shapes(**tensors: tuple[tf.Tensor | None, str]) -> None:
    """Raises for tensors whose static shapes differ from the description.

    An axis is a size, or a name that stands for one size in all tensors. What is not known until the graph runs is not
    checked, and None is left out::

        check_shapes(item=(item, "B d"), history=(history, "B L d"), mask=(mask, "B L"))

    Raises:
      ValueError: names the tensor, its shape and what was expected.
    """
    sizes: dict[str, int] = {}
    for name, (tensor, layout) in tensors.items():
        if tensor is None or tensor.shape.rank is None:
            continue
        axes, expected = layout.split(), f"[{', '.join(layout.split())}]"
        if len(axes) != tensor.shape.rank:
            raise ValueError(f"`{name}` must be {expected}. Received: shape {tensor.shape}")
        for axis, size in zip(axes, tensor.shape, strict=True):
            if size is not None:
                known = int(axis) if axis.isdecimal() else sizes.setdefault(axis, size)
                if known != size:
                    suffix = "" if axis.isdecimal() else f" with {axis} = {known}"
                    raise ValueError(f"`{name}` must be {expected}{suffix}. Received: shape {tensor.shape}")


def check_mask(mask: tf.Tensor) -> None:
    """Raises for a mask that is not bool.

    Raises:
      ValueError: names its dtype.
    """
    if not mask.dtype.is_bool:
        raise ValueError(f"`mask` must be bool. Received: {mask.dtype.name}")
