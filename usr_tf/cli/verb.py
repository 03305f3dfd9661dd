"""What a command of `usr-tf` is."""

import dataclasses
from collections.abc import Callable, Sequence

from absl import flags

PROGRAM = "usr-tf"


@dataclasses.dataclass(frozen=True)
class Verb:
    """A command: its flags, and what it does with them.

    `more` names the flag that arguments without a flag belong to: `--set a=1 b=2`. `beam` lets options
    after `--` through to Beam; `tensorflow` tells whether it takes TensorFlow's time to start.
    """

    summary: str
    define: Callable[[flags.FlagValues], None]
    run: Callable[[flags.FlagValues, Sequence[str]], object]
    required: tuple[str, ...] = ()
    more: str | None = None
    beam: bool = False
    tensorflow: bool = True
