"""What a training run can be told: the typed `config.yaml`, its defaults, and `--set key=value`."""

from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from usr_tf.errors import InputError
from usr_tf.schema import parse_model, parse_yaml, read_yaml

Units = Annotated[int, Field(ge=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Contrastive(_Strict):
    """The contrastive loss on interests and on rescaled features (DESIGN §4.3)."""

    variant: Literal["same_view", "augmented"] = "augmented"
    temperature: float = Field(0.1, gt=0)
    learn_temperature: bool = False
    projection: int = Field(32, ge=1)
    """Size of the space in which likeness is measured."""
    negatives: int = Field(16, ge=1)
    """The most rows of the batch that an anchor is held against."""
    feature_dropout: float = Field(0.1, gt=0, lt=1)
    """`augmented` only: the share of feature values that the positive goes without."""
    ie_weight: float = Field(0.01, ge=0)
    fg_weight: float = Field(0.01, ge=0)


class Usr(_Strict):
    """USR's own parts, each of which can be switched off."""

    ie: bool = True
    fg: bool = True
    glmt: bool = True
    contrastive: bool = True
    rank: int = Field(8, ge=1)
    """Rank `r` of the generated projections of the interest extractor."""
    trigger_hidden: int = Field(32, ge=1)
    fg_hidden: int = Field(64, ge=1)
    fg_condition: Literal["trigger", "trigger_and_features"] = "trigger"
    global_weight: float = Field(0.5, ge=0)
    """Weight of the global-label losses."""
    contrastive_loss: Contrastive = Contrastive()


class SharedBottom(_Strict):
    bottom: tuple[Units, ...] = Field((256, 128), min_length=1)
    tower: tuple[Units, ...] = (64,)


class MMoE(_Strict):
    experts: int = Field(4, ge=1)
    expert: tuple[Units, ...] = Field((256, 128), min_length=1)
    tower: tuple[Units, ...] = (64,)


class Train(_Strict):
    epochs: int = Field(10, ge=1)
    batch_size: int = Field(1024, ge=1)
    """Rows of one step, over all replicas together."""
    embedding_learning_rate: float = Field(0.1, gt=0)
    """Adagrad, for the embedding tables: costs O(batch), not O(vocabulary)."""
    learning_rate: float = Field(1e-3, gt=0)
    """Adam, for everything else."""
    l2: float = Field(0.0, ge=0)
    """Factor of the L2 penalty on the kernels of the backbone and the heads."""
    monitor: str = "val_nll"
    """What early stopping and the best checkpoint go by; higher is better where it ends in `auc`."""
    patience: int = Field(2, ge=0)
    """Epochs without improvement that are put up with; one more, and training stops."""


class Config(_Strict):
    """The whole of `config.yaml`."""

    seed: int = Field(0, ge=0, lt=2**32)
    data: str | None = None
    """The data that the run was trained on; `train` fills it in."""
    backbone: Literal["shared_bottom", "mmoe"] = "shared_bottom"
    embedding_size: int = Field(16, ge=1)
    usr: Usr = Usr()
    shared_bottom: SharedBottom = SharedBottom()
    mmoe: MMoE = MMoE()
    train: Train = Train()

    def to_yaml(self) -> str:
        """The fully resolved configuration, as a file that `load_config` reads back to an equal one."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load_config(path: str | Path | None = None, overrides: Iterable[str] = ()) -> Config:
    """The configuration of `path`, or the default one, with `key=value` overrides such as `usr.ie=false`.

    Raises:
      InputError: an unreadable file, an unknown key, or a value that does not suit its key.
    """
    if path is None:
        source = resources.files("usr_tf") / "configs" / "default.yaml"
        place = "default.yaml"
    else:
        source = Path(path)
        place = str(path)
    document = read_yaml(source, place, "a configuration") or {}
    overrides = list(overrides)
    if overrides and isinstance(document, dict):
        place = f"{place} with --set"
        for override in overrides:
            _apply(override, document)
    return parse_model(Config, document, place)


def _apply(override: str, document: dict[str, Any]) -> None:
    key, separator, value = override.partition("=")
    if not separator or not key:
        raise InputError("--set", repr(override), "key=value")
    *parents, leaf = key.split(".")
    for parent in parents:
        document = document.setdefault(parent, {})
        if not isinstance(document, dict):
            raise InputError("--set", f"{key}, though {parent} holds a value", "a key of the configuration")
    document[leaf] = parse_yaml(value, f"--set {key}", "a YAML value")
