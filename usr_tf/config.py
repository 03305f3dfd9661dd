"""Training configuration: the typed `config.yaml`, its defaults, and `--set key=value`."""

from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

import yaml
from pydantic import Field

from usr_tf.documents import Mistake, StrictModel, parse_model, parse_yaml, read_yaml
from usr_tf.errors import InputError

Units = Annotated[int, Field(ge=1)]
BackboneName = Literal["shared_bottom", "mmoe", "ple", "star", "m2m", "apg", "pepnet"]
"""Names of the backbones: values of `backbone`, sections of the configuration, keys of `usr_tf.backbones.BACKBONES`."""
BACKBONE_NAMES: tuple[BackboneName, ...] = get_args(BackboneName)
Pooling = Literal["mean", "din"]
"""Values of `history.pooling`, keys of `usr_tf.history_encoders.HISTORY_ENCODERS`."""


class Contrastive(StrictModel):
    """Contrastive loss on interests and on rescaled features (DESIGN §4.3)."""

    variant: Literal["same_view", "augmented"] = "augmented"
    """Choice of positives and negatives; see docs/models.md."""
    temperature: float = Field(0.1, gt=0)
    learn_temperature: bool = False
    """Whether the temperature is trained; it then stays at 0.01 or above."""
    projection: int = Field(32, ge=1)
    """Size of the projection in which cosines are computed."""
    anchors: int = Field(256, ge=1)
    """Maximum number of rows per batch, over all replicas, that are compared in every view. Other rows are computed in
    their own view only."""
    negatives: int = Field(16, ge=1)
    """Maximum number of rows of the batch that an anchor is compared with."""
    feature_dropout: float = Field(0.1, gt=0, lt=1)
    """Dropout rate of the features of the positive; `augmented` only."""
    ie_weight: float = Field(0.01, ge=0)
    """Weight of the loss on interests; 0 disables it."""
    fg_weight: float = Field(0.01, ge=0)
    """Weight of the loss on rescaled features; 0 disables it."""


class Usr(StrictModel):
    """Parts of USR, each of which can be switched off."""

    ie: bool = True
    """Interest extractor; false: `history.pooling`."""
    fg: bool = True
    """Feature generator; false: unscaled features."""
    glmt: bool = True
    """Global heads and the chain of probabilities; false: the chain of scenario heads, as in ESMM."""
    contrastive: bool = True
    """Contrastive losses."""
    rank: int = Field(8, ge=1)
    """Rank `r` of the generated projections of the interest extractor."""
    heads: int = Field(1, ge=1)
    """Attention heads of the interest extractor; a divisor of the width of an action of the history."""
    trigger_hidden: int = Field(32, ge=1)
    """Width of the hidden layer that generates the projections from the trigger."""
    fg_hidden: int = Field(64, ge=1)
    """Width of the hidden layer of the feature generator's gate."""
    fg_condition: Literal["trigger", "trigger_and_features"] = "trigger"
    """Input of the feature generator's gate."""
    global_weight: float = Field(0.5, ge=0)
    """Weight of the global-label losses."""
    contrastive_loss: Contrastive = Contrastive()


class History(StrictModel):
    """History encoder: what the model reads of the user's history."""

    describe: tuple[Literal["action", "scenario", "age", "position"], ...] = ("action", "scenario", "age")
    """Learned vectors added to each action's item: action, scenario, age at the impression, position from the newest
    action."""
    pooling: Pooling = "mean"
    """History encoder with `usr.ie=false`: the mean of the actions, or DIN's attention."""
    product: bool = False
    """Whether the elementwise product of encoded history and item is added, as with the interest extractor."""
    sequences: Literal["one", "by_scenario"] = "one"
    """`by_scenario`: the encoder reads each scenario's actions as one sequence, and those without a scenario in all of
    them; the model reads all outputs."""
    din: tuple[Units, ...] = Field((36,), min_length=1)
    """Sizes of the hidden layers of DIN's activation unit; torch-rechub's default."""


class PositionTower(StrictModel):
    """Position bias: learned in training, left out of every score."""

    enabled: bool = False
    """Whether position biases are trained."""
    positions: int = Field(50, ge=1)
    """Number of distinct positions; later positions share the bias of the last one."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Share of the training rows whose position is masked; the value of Zhao et al. (RecSys 2019)."""


class _Backbone(StrictModel):
    """Base class of the backbones' sizes."""

    widths: ClassVar[dict[str, list[list[int]]]] = {}
    """Default search space of `usr-tf tune`: key → values."""


class SharedBottom(_Backbone):
    """Sizes of SharedBottom; the defaults are those of DeepCTR's `SharedBottom`."""

    widths = {"bottom": [[128, 64], [256, 128], [512, 256]], "tower": [[32], [64]]}
    bottom: tuple[Units, ...] = Field((256, 128), min_length=1)
    tower: tuple[Units, ...] = (64,)


class MMoE(_Backbone):
    """Sizes of MMoE."""

    widths = {"expert": [[128, 64], [256, 128], [512, 256]], "tower": [[32], [64]]}
    experts: int = Field(4, ge=1)
    expert: tuple[Units, ...] = Field((256, 128), min_length=1)
    tower: tuple[Units, ...] = (64,)


class PLE(_Backbone):
    """Sizes of PLE; the defaults are those of DeepCTR's `PLE`."""

    widths = {"expert": [[128], [256], [512]], "tower": [[32], [64]]}
    levels: int = Field(2, ge=1)
    specific_experts: int = Field(1, ge=0)
    """Experts per scenario and task at each level."""
    shared_experts: int = Field(1, ge=1)
    """Shared experts at each level."""
    expert: tuple[Units, ...] = Field((256,), min_length=1)
    tower: tuple[Units, ...] = (64,)


class STAR(_Backbone):
    """Sizes of STAR.

    The defaults are those of Scenario-Wise-Rec's scripts. Their network (128, 64, 32) has one task; here each task has
    its own last layer.
    """

    widths = {"network": [[64, 32], [128, 64], [256, 128]], "tower": [[32], [64]]}
    network: tuple[Units, ...] = Field((128, 64), min_length=1)
    tower: tuple[Units, ...] = (32,)
    auxiliary: tuple[Units, ...] = (32,)
    """Hidden layers of the auxiliary network."""
    scenario_embedding: int = Field(16, ge=1)
    """Size of the scenario's vector that the auxiliary network reads."""


class PEPNet(_Backbone):
    widths = {"tower": [[64, 32], [100, 64], [256, 128]]}
    scenario_embedding: int = Field(16, ge=1)
    """Size of the scenarios' vectors; 16 is FuxiCTR's size for what its gates read."""
    gate_hidden: int = Field(64, ge=1)
    """Width of each gate's hidden layer; FuxiCTR's `gate_hidden_dim`."""
    tower: tuple[Units, ...] = Field((100, 64), min_length=1)
    """Sizes of the gated towers; deep-rec-kit's `hidden_units`."""


class M2M(_Backbone):
    """Sizes of M2M.

    The defaults are fun-rec's (4 experts, views of 32, scenarios of 16, units and tower of depth 3), except `(256,)`
    before an expert's last layer, as in our MMoE, and the size of the tasks' vectors, which is ours.
    """

    widths = {"expert": [[128, 32], [256, 32], [256, 64]]}
    experts: int = Field(4, ge=1)
    expert: tuple[Units, ...] = Field((256, 32), min_length=1)
    scenario_embedding: int = Field(16, ge=1)
    """Size of the vectors of scenario knowledge."""
    task_embedding: int = Field(16, ge=1)
    unit_depth: int = Field(3, ge=1)
    """Layers of each meta unit."""
    tower_depth: int = Field(3, ge=0)
    """Levels of the meta tower, each a meta unit and a residual."""


class APG(_Backbone):
    """Sizes of APG.

    Bottom and scenario vectors as in MMLRec's APG; rank, over-parameterisation and generator as in FuxiCTR's (`rank_k`,
    `overparam_p`, and the smaller of its `hypernet_config`s); towers as in our SharedBottom.
    """

    widths = {"bottom": [[128, 64], [256, 128], [512, 256]], "tower": [[32], [64]]}
    bottom: tuple[Units, ...] = Field((256, 128), min_length=1)
    tower: tuple[Units, ...] = (64,)
    condition: Literal["group", "mix", "self"] = "group"
    """Input of the core generator: the scenario, the scenario and the layer's input, or the layer's input."""
    scenario_embedding: int = Field(8, ge=1)
    rank: int = Field(8, ge=1)
    overparameter: Units | None = 64
    """Inner size of the two factors of `U` and `V` in training; null: no over-parameterisation."""
    generator: tuple[Units, ...] = (64, 32)
    """Hidden layers of the network that generates the core."""


class Schedule(StrictModel):
    """Learning-rate schedule of the whole optimizer: warm-up, then decay."""

    warmup_steps: int = Field(0, ge=0)
    """Steps of linear warm-up."""
    decay: Literal["none", "cosine", "step"] = "none"
    """Decay after warm-up: none, half a cosine, or a factor every `decay_steps`."""
    decay_steps: Units | None = None
    """Length of the cosine, or steps between two decays; null: a cosine over all of `train.epochs`."""
    decay_rate: float = Field(0.1, ge=0, le=1)
    """`cosine`: final rate as a share of the initial one. `step`: factor of each decay."""

    @property
    def varies(self) -> bool:
        """Whether the learning rate changes."""
        return self.decay != "none" or self.warmup_steps > 0

    def mistakes(self) -> Iterator[Mistake]:
        if self.decay == "step" and self.decay_steps is None:
            yield Mistake(("decay_steps",), "null", "the steps between two drops of decay 'step'")


class Train(StrictModel):
    """Training settings."""

    epochs: int = Field(10, ge=1)
    batch_size: int = Field(1024, ge=1)
    """Rows per step over all replicas."""
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    """`mixed_bfloat16`: layers compute in bfloat16, for CPUs with AMX and GPUs since Ampere. Weights, losses, metrics
    and serving stay in float32."""
    weights_on: Literal["device", "host"] = "device"
    """`host`: one copy of all weights in main memory, for tables larger than GPU memory; see docs/scaling.md."""
    warm_start: str | None = None
    """Finished run to start from, with the same schema and layers and possibly smaller vocabularies."""
    embedding_learning_rate: float = Field(0.003, gt=0)
    """Learning rate of Adagrad for the embedding tables. A step costs O(batch), not O(vocabulary)."""
    learning_rate: float = Field(1e-3, gt=0)
    """Learning rate of Adam for all other weights."""
    schedule: Schedule = Schedule()
    clip_norm: float | None = Field(None, gt=0)
    """Global gradient norm above which the gradients of a step are scaled down; null: no clipping."""
    l2: float = Field(0.0, ge=0)
    """Factor of the L2 penalty on the kernels of the backbone and the heads."""
    monitor: str = "val_nll"
    """Metric of early stopping and of the best checkpoint; higher is better if it ends in `auc`."""
    patience: int = Field(3, ge=0)
    """Epochs in a row without improvement after which training stops, as in `keras.callbacks.EarlyStopping`."""
    checkpoint_minutes: float = Field(5.0, gt=0)
    """Minutes between checkpoints within an epoch; each epoch ends with a checkpoint too."""
    checkpoint_steps: Units | None = None
    """Steps between checkpoints, if that is sooner; null: `checkpoint_minutes` only."""
    skip_corrupt: bool = False
    """Whether training skips the rest of a damaged file, with a warning of the lost rows, instead of stopping."""
    log_steps: Units | None = 100
    """Steps between points of TensorBoard's training curves; null: one point per epoch, as in validation curves."""
    histograms: bool = False
    """Whether TensorBoard gets histograms of weights and sampled embeddings after each epoch."""
    profile: str | None = Field(None, pattern=r"^[1-9]\d*-[1-9]\d*$")
    """`A-B`: profile of steps A to B of the run for TensorBoard, counted from 1."""

    @property
    def profiled_steps(self) -> tuple[int, int] | None:
        if self.profile is None:
            return None
        first, last = map(int, self.profile.split("-"))
        return first, last

    def mistakes(self) -> Iterator[Mistake]:
        if self.profiled_steps and self.profiled_steps[0] > self.profiled_steps[1]:
            yield Mistake(("profile",), repr(self.profile), "A-B with A not above B")


class Signals(StrictModel):
    """Families of signals that the model reads, of those that the schema has."""

    match: bool = True
    history_match: bool = True
    counters: bool = True
    past_queries: bool = True
    """The user's earlier queries, as a sequence."""


class Export(StrictModel):
    """What an exported model holds beside the network."""

    counters: Literal["snapshot", "request"] = "snapshot"
    """Where served counters come from: a snapshot inside the SavedModel, or inputs `[N]` of each request."""


_NOT_OF_A_STEP = {"epochs", "patience", "checkpoint_minutes", "checkpoint_steps", "skip_corrupt"}
_NOT_OF_A_STEP |= {"log_steps", "histograms", "profile"}
"""Keys of `train` that may change while a run is unfinished."""


class Config(StrictModel):
    """Training configuration, the whole of `config.yaml`."""

    seed: int = Field(0, ge=0, lt=2**32)
    data: str | None = None
    """Data directory of the training; `train` sets it."""
    backbone: BackboneName = "shared_bottom"
    cross: Literal["none", "dot"] = "dot"
    """What meets before the backbone: dot products of each request feature's vector with each candidate feature's."""
    embedding_size: int = Field(16, ge=1)
    """Default width of embeddings; the schema can set that of a feature."""
    embedding_spread: float = Field(0.05, gt=0)
    """Standard deviation of initial embeddings. A small value suits ids with few occurrences, whose initial vector is
    noise; 0.3 learns faster if each id occurs hundreds of times."""
    number_bins: int = Field(4, ge=1)
    """Bins of each number's piecewise-linear encoding, by quantiles of the training split; 1: the number itself."""
    history: History = History()
    signals: Signals = Signals()
    position_tower: PositionTower = PositionTower()
    usr: Usr = Usr()
    shared_bottom: SharedBottom = SharedBottom()
    mmoe: MMoE = MMoE()
    ple: PLE = PLE()
    star: STAR = STAR()
    m2m: M2M = M2M()
    apg: APG = APG()
    pepnet: PEPNet = PEPNet()
    train: Train = Train()
    export: Export = Export()

    @property
    def sizes(self) -> _Backbone:
        """Section of the selected backbone."""
        return getattr(self, self.backbone)

    def learns_as(self, other: "Config") -> bool:
        """Whether a run of one configuration can continue under the other: all that affects a step is equal."""
        kept_out: dict[str, Any] = {"train": _NOT_OF_A_STEP, "export": True}
        mine, others = (config.model_dump(exclude=kept_out) for config in (self, other))
        spans_all = self.train.schedule.decay == "cosine" and self.train.schedule.decay_steps is None
        return mine == others and (not spans_all or self.train.epochs == other.train.epochs)

    def to_yaml(self) -> str:
        """Fully resolved configuration as YAML that `load_config` reads back unchanged."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load_config(path: str | Path | None = None, overrides: Iterable[str] = ()) -> Config:
    """Configuration of `path` or the default one, with `key=value` overrides such as `usr.ie=false`.

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
