"""Verb: one command of `usr-tf`."""

import dataclasses
from collections.abc import Callable, Sequence

from absl import flags

PROGRAM = "usr-tf"


@dataclasses.dataclass(frozen=True)
class Verb:
    """Command of `usr-tf`: its flags and its function.

    `more` names the flag that arguments without a flag belong to: `--set a=1 b=2`. `beam` lets options
    after `--` through to Beam; `tensorflow` tells whether it takes TensorFlow's time to start.

    Args:
      example: arguments of a typical call, without the program's and the verb's name.
      extras: extras of the package that the verb needs (`usr_tf.cli.extras`).
      resumes: whether the same command goes on with the work of an interrupted one.
    """

    summary: str
    define: Callable[[flags.FlagValues], None]
    run: Callable[[flags.FlagValues, Sequence[str]], object]
    required: tuple[str, ...] = ()
    more: str | None = None
    beam: bool = False
    tensorflow: bool = True
    _: dataclasses.KW_ONLY
    example: str
    extras: tuple[str, ...]
    resumes: bool = False

    def flags(self) -> flags.FlagValues:
        """Flags of the verb with their defaults."""
        values = flags.FlagValues()
        self.define(values)
        return values
