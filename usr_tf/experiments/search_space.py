"""Search space of tuning: configuration keys with bounds or choices. Needs no TensorFlow."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from usr_tf.config import Config, load_config
from usr_tf.documents import Mistake, StrictModel, parse_model, read_yaml
from usr_tf.errors import InputError, raise_all


class Range(StrictModel):
    """Interval from `low` to `high`; integers if both are."""

    low: int | float
    high: int | float
    log: bool = False
    """Whether all orders of magnitude are as likely."""

    def mistakes(self) -> Iterator[Mistake]:
        if self.low >= self.high:
            yield Mistake(("high",), str(self.high), f"more than low, {self.low}")
        if self.log and self.low <= 0:
            yield Mistake(("low",), str(self.low), "a number above 0, as log is set")

    @property
    def samples(self) -> list[Any]:
        return [self.low, self.high]


class Choices(StrictModel):
    """Finite set of values."""

    choices: tuple[Any, ...] = Field(min_length=1)

    @property
    def samples(self) -> list[Any]:
        return list(self.choices)


Space = dict[str, Range | Choices]
"""Key of the configuration → where to look."""


def default_space(config: Config) -> Space:
    """Default space around the default values, without weights of parts that are switched off."""
    space: Space = {
        "train.learning_rate": Range(low=3e-4, high=1e-2, log=True),
        "train.embedding_learning_rate": Range(low=0.001, high=0.3, log=True),
        "train.batch_size": Choices(choices=(256, 512, 1024, 2048)),
        "embedding_size": Choices(choices=(8, 16, 32)),
        "embedding_spread": Range(low=0.02, high=0.5, log=True),
    }
    for key, widths in config.sizes.widths.items():
        space[f"{config.backbone}.{key}"] = Choices(choices=tuple(widths))
    if config.usr.glmt:
        space["usr.global_weight"] = Range(low=0.1, high=1.0)
    if config.usr.contrastive:
        space["usr.contrastive_loss.temperature"] = Range(low=0.03, high=0.5, log=True)
        space["usr.contrastive_loss.ie_weight"] = Range(low=1e-3, high=0.1, log=True)
        space["usr.contrastive_loss.fg_weight"] = Range(low=1e-3, high=0.1, log=True)
    return space


def load_space(path: str | Path, config_path: str | None = None, overrides: Iterable[str] = ()) -> Space:
    """Space from a YAML file, checked against the configuration.

    Raises:
      InputError: an unreadable file, an unknown key, or a value that does not suit its key.
    """
    document = read_yaml(Path(path), path, "a search space")
    if not isinstance(document, dict) or not document:
        raise InputError(path, "no keys", "keys of the configuration, each with low and high, or with choices")
    load_config(config_path, overrides := list(overrides))
    axes: Space = {}
    errors: list[InputError] = []
    for key, value in document.items():
        try:
            axes[key] = _axis(f"{path}: {key}", value)
        except InputError as error:
            errors.append(error)
            continue
        for sample in axes[key].samples:
            try:
                load_config(config_path, [*overrides, setting(key, sample)])
            except InputError as error:
                errors.append(InputError(f"{path}: {key}", f"{sample!r} ({error})", "what the configuration takes"))
                break
    raise_all(errors)
    return axes


def setting(key: str, value: Any) -> str:
    """`key=value` as `--set` takes it."""
    return f"{key}={json.dumps(value, default=str)}"


def _axis(place: str, value: Any) -> Range | Choices:
    return parse_model(Choices if isinstance(value, dict) and "choices" in value else Range, value, place)
