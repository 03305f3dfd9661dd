"""USR model (DESIGN §4, our reading of arXiv 2405.10835)."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras as keras

from usr_tf.backbones import make_backbone
from usr_tf.config import Config
from usr_tf.data import Data, Features, Labels
from usr_tf.embedding import FeatureEmbedding
from usr_tf.errors import InputError
from usr_tf.history_encoders import HistoryEncoder, make_history_encoder
from usr_tf.layers.contrastive import ContrastiveLoss, SummedLoss
from usr_tf.layers.dot_cross import DotCross, starts
from usr_tf.layers.feature_generator import FeatureGenerator
from usr_tf.layers.global_label import GlobalLabelHeads, LogProbabilities
from usr_tf.layers.interest_extractor import InterestExtractor
from usr_tf.layers.log_space import binary_cross_entropy
from usr_tf.layers.position import LogitBias, PositionTower
from usr_tf.layers.scenario import Scenario
from usr_tf.optimizers import make_optimizer
from usr_tf.schema import POSITION, SCENARIO, Group, Schema, history_column, parse_schema
from usr_tf.training.precision import computing_in
from usr_tf.training.seeds import seeded
from usr_tf.training.strategies import sum_over_replicas
from usr_tf.training.streaming_auc import ScenarioAUC

_BIN_ROWS = 16_384
"""Training rows that the bins of numbers are computed from."""

Batch = tuple[Features, Labels] | tuple[Features, Labels, tf.Tensor]
"""What `fit` takes: features, labels, and perhaps a weight `[B]` of each row."""


class Views(NamedTuple):
    """Generated interests and features per scenario view; V is K in the contrastive loss, 1 elsewhere."""

    request: tf.Tensor
    """`[R, V, dr]`, rescaled user and context features; `[B, V, dr]` when the gate reads the candidate too."""
    candidate: tf.Tensor
    """`[B, V, dc]`, rescaled item features."""
    interest: tf.Tensor | None
    """`[B, V, d]`, or `[B, 1, d]` from an encoder without a trigger; `[R, 1, d]` without the candidate either. With K
    sequences of the history, `K d` wide.

    None without a history."""
    search_interest: tf.Tensor | None = None
    """`[B, 1, dq]`, interest of the user's earlier queries; None without them, and in the contrastive loss."""


class Inputs(NamedTuple):
    """Embedded batch. R is B in training and 1 in serving."""

    request: tf.Tensor
    """`[R, dr]`, user and context features."""
    candidate: tf.Tensor
    """`[B, dc]`, item features: first the columns of `item`, then the others."""
    query: tf.Tensor | None
    """`[R, dq]`."""
    item: tf.Tensor | None
    """`[B, d]`, the candidate as a history would hold it."""
    history: tf.Tensor | None
    """`[R, L, d]`."""
    mask: tf.Tensor | None
    """bool `[R, L]`."""
    sequences: tf.Tensor | None = None
    """bool `[R, K, L]`, which actions are of each scenario; None where the history is one sequence."""
    past_queries: tf.Tensor | None = None
    """`[R, Q, dq]`, the user's earlier queries."""
    past_mask: tf.Tensor | None = None
    """bool `[R, Q]`."""


class Rows(NamedTuple):
    """Number of rows of a batch, float32 scalars."""

    here: tf.Tensor
    """Of this replica."""
    everywhere: tf.Tensor
    """Of all replicas."""


@keras.saving.register_keras_serializable(package="usr_tf")
class USRModel(tfrs.Model):
    """Ranking model of K scenarios for a chain of T tasks.

    ::

        trigger t_v = [e_scenario(v) ; q]                   one for each view v
        interest i_v = IE(item, history, t_v)               what of the history bears on the item
        features f_v = FG(user ⊕ context ⊕ item, t_v)       rescaled
        searches s_v = IE(candidate, past queries, t_v)     where the schema has past queries
        dots x = ⟨user, context, query⟩ · ⟨item⟩            of each pair of features' vectors
        p = heads(backbone([f_v ; i_v ; i_v ⊙ item ; q ; x ; s_v]))   v the row's own scenario

    Signals of the schema are numbers of the candidate, among the features that FG rescales.

    Parts that `config.usr` switches off fall back to what a plain backbone reads: the mean of the history or DIN's
    attention instead of IE, the features as they are instead of FG, and an ESMM chain instead of GLMT. A position
    tower, where there is one, bears on the loss in training and on nothing else.

    A model is whole once it is made: its variables are there, drawn from `config.seed`, and layers compute in
    `config.train.precision`. Make it under the `tf.distribute` strategy that is to train it.

    Args:
      schema: What the rows hold.
      vocabulary_sizes: Ids of each feature that has any (`Data.vocabulary_sizes`).
      config: The configuration; the default one when absent.

    Call arguments:
      features: as `Data.training` yields them: ids int64 `[B]` or `[B, n]`, numbers float32 `[B]`, histories
        `[B, L]` or `[B, L, n]`, and `scenario` int32 `[B]`.

    Returns:
      `{label: [B] probability}`: each task's, and each `global_<task>`'s with GLMT.

    Raises:
      InputError: the history encoder does not suit the width of an action, such as `usr.heads` that do not divide it.
    """

    def __init__(self, schema: Schema, vocabulary_sizes: Mapping[str, int], config: Config | None = None):
        super().__init__(name="usr")
        self.schema, self.config = schema, config or Config()
        self._vocabulary_sizes = dict(vocabulary_sizes)
        with computing_in(self.config.train.precision):
            with seeded(self.config.seed):
                self._make_layers()
            with seeded((self.config.seed + 1) % 2**32):
                self._make_variables()

    def _make_layers(self) -> None:
        schema = self.schema
        usr, self._scenarios, tasks = self.config.usr, len(schema.scenarios), len(schema.tasks)
        self._label_names = schema.label_names if usr.glmt else schema.task_names
        self._request_features = (*self._inputs_of("user"), *self._inputs_of("context"))
        self._other_item_features = tuple(
            name for name in self._inputs_of("item", "candidate") if name not in schema.history_features
        )
        self._query_features = self._inputs_of("query")
        self._query_ids = tuple(name for name in self._query_features if schema.inputs[name].has_ids)
        history = self.config.history
        # Replicas add up their gradients, and each of them has the whole penalty.
        self._replicas = tf.distribute.get_strategy().num_replicas_in_sync
        share = self.config.train.model_copy(update={"l2": self.config.train.l2 / self._replicas})

        size = self.config.embedding_size
        self.embedding = FeatureEmbedding(
            schema,
            self._vocabulary_sizes,
            size,
            history.describe,
            self.config.embedding_spread,
            self.config.number_bins,
            name="embedding",
        )
        self._no_query = None
        if self._query_ids:
            width = sum(self.embedding.width(name) for name in self._query_features)
            self._no_query = self.add_weight(name="no_query", shape=[width], initializer="uniform")
        self.feature_generator = self.scenario_embedding = None
        self.history_encoder = self._make_history_encoder()
        encoder = self.history_encoder
        self._history_product = encoder is not None and (encoder.has_product or history.product)
        self.search_interest = self._search_item = None
        if schema.query_columns and self.config.signals.past_queries:
            width = self.embedding.width("query")
            self._search_item = keras.layers.Dense(width, use_bias=False, name="search_item")
            self.search_interest = InterestExtractor(usr.rank, usr.trigger_hidden, name="search_interest")
        self.cross = self._make_cross() if self.config.cross == "dot" else None
        if usr.fg:
            self.feature_generator = FeatureGenerator(usr.fg_hidden, usr.fg_condition, name="feature_generator")
        if self._encodes_views or self.feature_generator or self.search_interest:
            self.scenario_embedding = keras.layers.Embedding(self._scenarios, size, name="scenario")
        self.backbone = make_backbone(self.config.model_copy(update={"train": share}), self._scenarios, tasks)
        penalty = keras.regularizers.L2(share.l2) if share.l2 else None
        self.heads = GlobalLabelHeads(tasks, self._scenarios, usr.glmt, penalty, name="heads", dtype="float32")
        self.position_tower = None
        if self.config.position_tower.enabled:
            options = self.config.position_tower.model_dump(exclude={"enabled"})
            self.position_tower = PositionTower(
                self._scenarios, tasks, usr.glmt, **options, name="position_tower", dtype="float32"
            )
        self._contrastive = self._make_contrastive_losses()
        self.step = tf.Variable(
            0, trainable=False, dtype=tf.int64, name="step", aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
        )
        """Training steps so far."""

        self._has_further_metrics = False
        terms = [f"{name}_loss" for name in self._label_names] + [f"{name}_contrastive" for name in self._contrastive]
        self._terms = {name: keras.metrics.Mean(name) for name in ("loss", "nll", *terms)}
        self._auc = [ScenarioAUC(schema.scenarios, task) for task in schema.task_names]

    def _make_history_encoder(self) -> HistoryEncoder | None:
        """The history encoder of the configuration; None for a schema without a history."""
        if not self.schema.history_columns:
            return None
        width = self.embedding.item_width
        encoder = make_history_encoder(self.config, width)
        if encoder.width != width and self.config.history.product:
            found = f"true, with an encoder of width {encoder.width}"
            raise InputError("history.product", found, f"an encoder of width {width}, that of an action of the history")
        if encoder.layer is not None:
            setattr(self, encoder.part, encoder.layer)  # Keras tracks the attribute, and .keras files hold its name
        return encoder

    @property
    def _encodes_views(self) -> bool:
        """Whether the encoded history depends on the scenario view."""
        return self.history_encoder is not None and self.history_encoder.reads_trigger

    def _inputs_of(self, *groups: Group) -> tuple[str, ...]:
        """Inputs of these groups that the model reads: signals by `config.signals`."""
        inputs = self.schema.inputs_of(*groups)
        families = {name: self.schema.signal_family(name) for name in inputs}
        return tuple(name for name, family in families.items() if not family or getattr(self.config.signals, family))

    def _make_cross(self) -> DotCross | None:
        """Dot products of all vectors with ids of the default width; None where one side has none."""
        size = self.config.embedding_size
        columns = self.columns()
        sides = [*columns["request"], *columns["query"]], columns["candidate"]
        widths = {
            name: self.embedding.width(name) if self.schema.inputs[name].has_ids else 0 for name in self.schema.inputs
        }
        request, candidate = (starts(names, widths, size) for names in sides)
        return DotCross(size, request, candidate, name="cross") if request and candidate else None

    @classmethod
    def from_data(cls, data: Data, config: Config | None = None) -> "USRModel":
        """Model for the rows of `data`, with the bins of its numbers (`number_bins`)."""
        model = cls(data.schema, data.vocabulary_sizes, config)
        model.embedding.adapt(data.sampled_numbers(_BIN_ROWS))
        return model

    def get_config(self) -> dict[str, Any]:
        return {
            "schema": self.schema.to_yaml(),
            "vocabulary_sizes": dict(self._vocabulary_sizes),
            "config": self.config.model_dump(mode="json"),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None) -> "USRModel":
        return cls(parse_schema(config["schema"]), config["vocabulary_sizes"], Config(**config["config"]))

    def build(self, input_shape: Any) -> None:
        """Does nothing: a model is built when it is made."""

    def make_variables(self, seed: int | None = None) -> None:
        """Does nothing: a model has its variables when it is made, drawn from `config.seed`."""

    def _make_variables(self) -> None:
        """Makes every variable now, which Keras would do at the first batch."""
        self._set_save_spec({name: spec for name, spec in self._feature_specs().items() if name != POSITION})
        # No rows: moving statistics stay as they start. Lists are of one value, as no sum is over none.
        blank = {
            name: tf.zeros([0, *(size or 1 for size in spec.shape[1:])], spec.dtype)
            for name, spec in self._feature_specs().items()
        }
        labels = {name: tf.zeros([0]) for name in self.schema.label_names}
        seed = (self.config.seed + 1) % 2**32

        def make() -> None:
            # Keras draws from a generator for each thread, and each replica has a thread.
            keras.utils.set_random_seed(seed)
            self({name: values for name, values in blank.items() if name != POSITION})
            self.compute_loss((blank, labels), training=True)

        # Through the strategy: metrics under several replicas can be updated within a replica alone.
        tf.distribute.get_strategy().run(make)
        self.reset_metrics()

    def _feature_specs(self) -> Features:
        """The tensors of a batch's features, of any number of rows."""
        specs = {SCENARIO: tf.TensorSpec([None], tf.int32, name=SCENARIO)}
        for name, feature in self.schema.inputs.items():
            kind = tf.int64 if feature.has_ids else tf.float32
            width = [None] if feature.is_list else [feature.width] if feature.width else []
            specs[name] = tf.TensorSpec([None, *width], kind, name=name)
        specs |= {name: tf.TensorSpec([None, None], tf.float32, name=name) for name in self.schema.weight_columns}
        if self.schema.history.queries:
            shapes = [None, None, self.schema.history.queries.tokens], [None, None]
            for name, shape in zip(self.schema.query_columns, shapes, strict=True):
                specs[name] = tf.TensorSpec(shape, tf.int64, name=name)
        for name in self.schema.history_columns:
            shape = [None, None, self.schema.history_width(name)] if self.schema.history_width(name) else [None, None]
            specs[name] = tf.TensorSpec(shape, tf.int64, name=name)
        if self.position_tower:
            specs[POSITION] = tf.TensorSpec([None], tf.int64, name=POSITION)
        return specs

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: None = None,
        metrics: Any = None,
        loss_weights: None = None,
        weighted_metrics: Any = None,
        jit_compile: bool | None = None,
        **kwargs: Any,
    ) -> None:
        """Configures `fit` and `evaluate`.

        Args:
          optimizer: any of Keras; `make_optimizer` of the model's configuration when absent.
          metrics: further ones, such as `{"ctr": keras.metrics.AUC()}`, of labels and probabilities by name.
          weighted_metrics: the same, with the rows' weights.
          **kwargs: `run_eagerly`, `steps_per_execution` and what else `keras.Model.compile` has.

        Raises:
          ValueError: a loss, since the model has its own, or `jit_compile`, since XLA cannot compile updates of a
            batch's rows alone.
        """
        if loss is not None or loss_weights is not None:
            raise ValueError(
                "USRModel computes its own loss: leave out `loss` and `loss_weights`; `usr.global_weight` and the "
                f"contrastive weights of the configuration weigh its terms. Received: {loss!r}, {loss_weights!r}"
            )
        if jit_compile:
            raise ValueError(
                "XLA cannot compile sparse updates of embedding tables: leave out `jit_compile`. Received: jit_compile="
                f"{jit_compile!r}"
            )
        optimizer = make_optimizer(self, self.config.train) if optimizer is None else optimizer
        self._has_further_metrics = bool(metrics or weighted_metrics)
        super().compile(optimizer, metrics=metrics, weighted_metrics=weighted_metrics, jit_compile=False, **kwargs)
        if isinstance(self.optimizer, keras.optimizers.Optimizer):
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model with the settings of the saved one."""
        self.compile(**keras.saving.deserialize_keras_object(config))

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """`keras.Model.fit`.

        Raises:
          ValueError: `class_weight`, which several tasks have no one meaning of.
        """
        if kwargs.get("class_weight"):
            raise ValueError(
                "USRModel has several tasks, so classes have no one weight: give each row a weight, as the third part "
                f"of `(features, labels, sample_weight)`. Received: class_weight={kwargs['class_weight']}"
            )
        return super().fit(x, *args, **kwargs)

    @property
    def metrics_names(self) -> list[str]:
        """Names of the values of `evaluate`, in its order."""
        return [name for name in super().metrics_names if not name.endswith("_contrastive")]  # training's alone

    @property
    def parts(self) -> dict[str, keras.layers.Layer | tf.Variable]:
        """Parts with weights, by name."""
        parts = {
            "embedding": self.embedding,
            "scenario_embedding": self.scenario_embedding,
            "no_query": self._no_query,
            **({self.history_encoder.part: self.history_encoder.layer} if self.history_encoder else {}),
            "cross": self.cross,
            "search_item": self._search_item,
            "search_interest": self.search_interest,
            "feature_generator": self.feature_generator,
            "backbone": self.backbone,
            "heads": self.heads,
            "position_tower": self.position_tower,
            **{f"{name}_contrastive": layer for name, layer in self._contrastive.items()},
        }
        return {name: part for name, part in parts.items() if part is not None}

    def checkpoint(self) -> tf.train.Checkpoint:
        """The weights alone, each part under its name: a metric more or less leaves old checkpoints readable."""
        return tf.train.Checkpoint(**self.parts)

    @property
    def table_variables(self) -> list[tf.Variable]:
        """Embedding tables of the features, for the sparse optimizer."""
        return self.embedding.trainable_variables

    @property
    def dense_variables(self) -> list[tf.Variable]:
        """All other trained variables."""
        tables = {variable.ref() for variable in self.table_variables}
        return [variable for variable in self.trainable_variables if variable.ref() not in tables]

    def call(self, features: Features, training: bool = False) -> dict[str, tf.Tensor]:
        scenario, inputs = self._check_scenario(features[SCENARIO]), self.look_up(features)
        return self._by_label(self._predict(inputs, scenario, training))

    def serve(self, features: Features, scenario: int, one_request: bool) -> dict[str, tf.Tensor]:
        """Scores of candidates of one scenario, of which only that scenario's weights are read.

        Args:
          features: `[N]` or `[N, n]`. With `one_request`, those of users, queries, contexts and histories are
            one row, and what depends on them alone is computed once.
          scenario: Index of the scenario.

        Returns:
          `{task: [N] probability}`.
        """
        inputs = self.look_up(features, check=False)
        log_p = self.rank(inputs, self.view(inputs, scenario, one_request), scenario, one_request)
        return dict(zip(self.schema.task_names, tf.unstack(tf.exp(log_p), axis=1), strict=True))

    def look_up(self, features: Features, check: bool = True) -> Inputs:
        """Embedded inputs of the model: the features' vectors, looked up once.

        Args:
          check: Whether an id that its feature does not have raises `tf.errors.InvalidArgumentError`.
        """

        def embed(names: Sequence[str]) -> tf.Tensor:
            return self.embedding(features, names, check)

        history, mask = self.embedding.history(features, check) if self.history_encoder else (None, None)
        item = embed(self.schema.history_features) if self.history_encoder else None
        others = embed(self._other_item_features) if self._other_item_features else None
        sides = [part for part in (item, others) if part is not None]
        candidate = _concat(sides, like=sides[0])
        request = embed(self._request_features) if self._request_features else candidate[:, :0]
        query = embed(self._query_features) if self._query_features else None
        past = self.embedding.past_queries(features, check) if self.search_interest else (None, None)
        sequences = self._sequences(features, mask) if mask is not None else None
        return Inputs(request, candidate, self._or_no_query(query, features), item, history, mask, sequences, *past)

    def _sequences(self, features: Features, mask: tf.Tensor) -> tf.Tensor | None:
        """bool `[R, K, L]`: the actions of each scenario, with `history.sequences` of `by_scenario`."""
        if self.config.history.sequences == "one":
            return None
        scenario = features[history_column("scenario")][:, tf.newaxis]
        own = tf.range(1, self._scenarios + 1, dtype=scenario.dtype)[:, tf.newaxis]
        return mask[:, tf.newaxis] & (tf.equal(scenario, own) | tf.equal(scenario, 0))

    def _masks(self, inputs: Inputs) -> list[tf.Tensor]:
        """bool `[R, L]` of each sequence of the history."""
        if inputs.sequences is None:
            return [inputs.mask]
        return tf.unstack(inputs.sequences, self._scenarios, axis=1)

    def columns(self) -> dict[str, list[str]]:
        """Feature of each column of `request`, `candidate` and `query` of `Inputs`."""
        candidate = self.embedding.columns(self.schema.history_features)
        return {
            "request": self.embedding.columns(self._request_features),
            "candidate": candidate + self.embedding.columns(self._other_item_features),
            "query": self.embedding.columns(self._query_features),
        }

    def view(self, inputs: Inputs, scenario: Scenario, one_request: bool = False) -> Views:
        """View of each row's own scenario, or of one scenario for all rows; V is 1."""
        trigger = self._own_trigger(inputs, scenario, one_request)
        views = self._generate(inputs, trigger, one_request)
        return views._replace(search_interest=self._extract_search_interest(inputs, trigger, one_request))

    def rank(self, inputs: Inputs, views: Views, scenario: int, one_request: bool = False) -> tf.Tensor:
        """Log probabilities `[N, T]` of one scenario, from its view."""
        return self._rank(inputs, views, scenario, one_request=one_request).scenario

    def gates(self, inputs: Inputs, scenario: int) -> tuple[tf.Tensor, tf.Tensor] | None:
        """FG's gates δ of `request [B, dr]` and `candidate [B, dc]` in a scenario's view.

        Of B rows, each with a request of its own. None without FG.
        """
        if not self.feature_generator:
            return None
        trigger = self._own_trigger(inputs, scenario)
        request, candidate = self.feature_generator.gates((inputs.request, inputs.candidate), trigger)
        return tf.squeeze(request, axis=1), tf.squeeze(candidate, axis=1)

    def attention(self, inputs: Inputs, scenario: int) -> tf.Tensor | None:
        """Attention `[B, H, L]` over the history in a scenario's view, by head.

        Of B rows, each with a request of its own. None where the history encoder has no attention.
        """
        if not self.history_encoder:
            return None
        trigger = self._own_trigger(inputs, scenario)
        attend = self.history_encoder.attention
        weights = [attend(inputs.item, inputs.history, mask, trigger) for mask in self._masks(inputs)]
        return None if weights[0] is None else tf.squeeze(tf.add_n(weights) / len(weights), axis=1)

    def compute_loss(self, inputs: Batch, training: bool = False) -> tf.Tensor:
        """Loss of this replica; the sum over replicas is the mean over all rows.

        `Σ BCE(scenario tasks) + λ_g Σ BCE(global tasks) + λ_ie L(interests) + λ_fg L(features)`. In training, a
        position tower reads `position` int64 `[B]` of the features, and the probabilities are those at that place.
        A weight multiplies its row's losses of the tasks, and the mean is over the rows, as in Keras.

        Five steps: embed the features, predict, sum the losses of the tasks, add the contrastive losses in training,
        and update the metrics.

        Raises:
          tf.errors.InvalidArgumentError: a label is not 0 or 1, or an id or a scenario does not exist.
        """
        features, labels, weights = keras.utils.unpack_x_y_sample_weight(inputs)
        scenario, embedded = self._check_scenario(features[SCENARIO]), self.look_up(features)
        log_p = self._predict(embedded, scenario, training, self._position_bias(features, training))
        rows = self._count_rows(scenario)
        loss = self._task_losses(log_p, self._check_labels(labels), rows.everywhere, weights)
        if training and self._contrastive:
            loss += self._contrastive_losses(embedded)
        self._update_metrics(loss, rows, log_p, labels, scenario, weights)
        return loss

    def _position_bias(self, features: Features, training: bool) -> LogitBias | None:
        """Position tower's bias of the logits; None outside of training and without a tower."""
        if not training or self.position_tower is None:
            return None
        if POSITION not in features:
            found = "batches without `position`"
            raise InputError("position_tower.enabled", found, "`data.training(..., with_position=True)`")
        return self.position_tower(features[SCENARIO], features[POSITION], self._noise())

    def _count_rows(self, scenario: tf.Tensor) -> Rows:
        rows = tf.cast(tf.shape(scenario)[0], tf.float32)
        return Rows(rows, sum_over_replicas(rows))

    def _check_labels(self, labels: Labels) -> tf.Tensor:
        """`[B, labels]`, in the order of the model's label names.

        Raises:
          tf.errors.InvalidArgumentError: one is not 0 or 1.
        """
        values = tf.stack([tf.cast(labels[name], tf.float32) for name in self._label_names], axis=1)
        binary = tf.reduce_all((values == 0) | (values == 1))
        message = [f"labels {', '.join(self._label_names)}: expected 0 or 1, found", values]
        with tf.control_dependencies([tf.debugging.Assert(binary, message)]):
            return tf.identity(values)

    def _by_label(self, log_p: LogProbabilities) -> dict[str, tf.Tensor]:
        """Probabilities `[B]` by label name."""
        return dict(zip(self._label_names, tf.unstack(tf.exp(_side_by_side(log_p)), axis=1), strict=True))

    def _update_metrics(
        self,
        loss: tf.Tensor,
        rows: Rows,
        log_p: LogProbabilities,
        labels: Labels,
        scenario: tf.Tensor,
        weights: tf.Tensor | None,
    ) -> None:
        # Counts as many rows as this replica has, though the loss is a share of everybody's.
        mean = tf.math.divide_no_nan(loss * rows.everywhere, rows.here)
        self._terms["loss"].update_state(mean, rows.here)
        probabilities = self._by_label(log_p)
        for auc in self._auc:
            auc.update_state(labels[auc.task], probabilities[auc.task], scenario)
        if self._has_further_metrics:
            truth, scores = (
                {name: values[name][:, tf.newaxis] for name in self._label_names} for values in (labels, probabilities)
            )
            self.compiled_metrics.update_state(truth, scores, sample_weight=weights)

    def train_step(self, inputs: Batch) -> dict[str, tf.Tensor]:
        logs = self._logs(super().train_step(inputs))
        with tf.control_dependencies([logs["loss"]]):  # not where there was no batch left
            self.step.assign_add(1)
        return logs

    def test_step(self, inputs: Batch) -> dict[str, tf.Tensor]:
        logs = self._logs(super().test_step(inputs))
        return {name: value for name, value in logs.items() if not name.endswith("_contrastive")}  # not computed there

    def _logs(self, logs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The epoch's mean loss in place of TFRS's, which is the last batch's on one replica."""
        del logs["total_loss"]
        if not self.config.train.l2:
            del logs["regularization_loss"]
        return logs | {"loss": self._terms["loss"].result()}

    def _noise(self) -> tf.Tensor:
        """int64 `[2]` seed of this step's random numbers, equal in a resumed run."""
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return tf.random.experimental.stateless_fold_in(tf.stack([self.config.seed, self.step]), replica)

    def _make_contrastive_losses(self) -> dict[str, ContrastiveLoss]:
        """Contrastive losses by part: history encoder and feature generator, as configured."""
        usr, options = self.config.usr, self.config.usr.contrastive_loss
        if not usr.contrastive or (options.variant == "same_view" and self._scenarios == 1):
            return {}
        weights = {"interest": options.ie_weight, "features": options.fg_weight}
        made = {"interest": self._encodes_views, "features": self.feature_generator}
        chosen = options.model_dump(exclude={"ie_weight", "fg_weight", "feature_dropout", "anchors"})
        return {
            name: ContrastiveLoss(**chosen, name=f"{name}_contrastive", dtype="float32")
            for name in made
            if made[name] and weights[name]
        }

    def _check_scenario(self, scenario: tf.Tensor) -> tf.Tensor:
        """The scenarios of the rows.

        Raises:
          tf.errors.InvalidArgumentError: there is no such scenario.
        """
        known = tf.reduce_all((scenario >= 0) & (scenario < self._scenarios))
        message = [f"scenario: expected 0 to {self._scenarios - 1}, found", scenario]
        with tf.control_dependencies([tf.debugging.Assert(known, message)]):
            return tf.identity(scenario)

    def _or_no_query(self, query: tf.Tensor | None, features: Features) -> tf.Tensor | None:
        """`[R, dq]`: the query's vectors, or the learned "no query" vector where a row has none."""
        if query is None or self._no_query is None:
            return query
        ids = [features[name] for name in self._query_ids]
        present = [tf.reduce_any(value != 0, axis=-1) if len(value.shape) == 2 else value != 0 for value in ids]
        no_query = tf.cast(self._no_query, query.dtype)
        return tf.where(tf.reduce_any(present, axis=0)[:, tf.newaxis], query, no_query)

    def _trigger(self, query: tf.Tensor | None, views: tf.Tensor) -> tf.Tensor | None:
        """`[R, V, t]`: the triggers of the scenarios `views [R, V]`; None where no part reads them."""
        if self.scenario_embedding is None:
            return None
        scenario = self.scenario_embedding(views)
        if query is None:
            return scenario
        return tf.concat([scenario, tf.repeat(query[:, tf.newaxis], tf.shape(views)[1], axis=1)], axis=-1)

    def _own_trigger(self, inputs: Inputs, scenario: Scenario, one_request: bool = False) -> tf.Tensor | None:
        """`[R, 1, t]`: the trigger of each row's own scenario, or of one for all."""
        if isinstance(scenario, int):
            scenario = tf.fill([1 if one_request else tf.shape(inputs.candidate)[0]], scenario)
        return self._trigger(inputs.query, scenario[:, tf.newaxis])

    def _generate(self, inputs: Inputs, trigger: tf.Tensor, one_request: bool = False) -> Views:
        if self.feature_generator:
            request, candidate = self.feature_generator((inputs.request, inputs.candidate), trigger)
        else:  # the same in every view
            request, candidate = tf.expand_dims(inputs.request, 1), tf.expand_dims(inputs.candidate, 1)
        interest = None
        if self.history_encoder:
            encode = self.history_encoder.serve if one_request else self.history_encoder.encode
            parts = [encode(inputs.item, inputs.history, mask, trigger) for mask in self._masks(inputs)]
            interest = parts[0] if len(parts) == 1 else tf.concat(parts, axis=-1)
            interest = tf.expand_dims(interest, 1) if one_request else interest
        return Views(request, candidate, interest)

    def _extract_search_interest(self, inputs: Inputs, trigger: tf.Tensor, one_request: bool) -> tf.Tensor | None:
        """`[B, 1, dq]`: attention over the user's earlier queries, by candidate and trigger; None without them."""
        if not (self.search_interest and self._search_item):
            return None
        extract = self.search_interest.serve if one_request else self.search_interest
        interest = extract(self._search_item(inputs.candidate), inputs.past_queries, inputs.past_mask, trigger)
        return tf.expand_dims(interest, 1) if one_request else interest

    def _predict(
        self, inputs: Inputs, scenario: tf.Tensor, training: bool, bias: LogitBias | None = None
    ) -> LogProbabilities:
        """Log probabilities of each row in its own scenario; NaN in rows whose inputs are not finite."""
        log_p = self._rank(inputs, self.view(inputs, scenario), scenario, training, bias)
        return _nan_where_not_finite(inputs, log_p)

    def _rank(
        self,
        inputs: Inputs,
        views: Views,
        scenario: Scenario,
        training: bool = False,
        bias: LogitBias | None = None,
        one_request: bool = False,
    ) -> LogProbabilities:
        """Log probabilities `[B, T]` from one view a row."""
        request: list[tf.Tensor] = []
        candidate = [tf.squeeze(views.candidate, axis=1)]
        per_candidate = self.feature_generator and self.feature_generator.condition == "trigger_and_features"
        (candidate if per_candidate else request).append(tf.squeeze(views.request, axis=1))
        if inputs.query is not None:
            request.append(inputs.query)
        if self.history_encoder:
            interest = tf.squeeze(views.interest, axis=1)
            (candidate if self.history_encoder.reads_candidate else request).append(interest)
            if self._history_product:
                item = tf.tile(inputs.item, [1, self._scenarios]) if inputs.sequences is not None else inputs.item
                candidate.append(interest * item)  # where the two meet, which a network is slow to find out
        if self.cross:
            sides = [part for part in (inputs.request, inputs.query) if part is not None]
            candidate.append(self.cross(_concat(sides, like=sides[0]), inputs.candidate))
        if views.search_interest is not None:
            candidate.append(tf.squeeze(views.search_interest, axis=1))
        if not one_request:  # every row is a request of its own: side by side, a layer on them is one product
            request, candidate = [*request, *candidate], []
        last = _concat(candidate or request, like=inputs.candidate)
        split = (_concat(request, like=last), last) if candidate else (last, last[:, :0])
        hidden = self.backbone(*split, scenario, training=training)
        bias = bias or LogitBias(None, None)
        own = [tf.cast(logit, tf.float32) for logit in (hidden.scenario_logit, bias.scenario) if logit is not None]
        return self.heads(hidden.scenario, hidden.shared, scenario, tf.add_n(own) if own else None, bias.shared)

    def _task_losses(
        self, log_p: LogProbabilities, labels: tf.Tensor, all_rows: tf.Tensor, weights: tf.Tensor | None
    ) -> tf.Tensor:
        losses = binary_cross_entropy(_side_by_side(log_p), labels)
        if weights is not None:
            losses *= tf.cast(tf.reshape(weights, [-1, 1]), losses.dtype)
        for name, values in zip(self._label_names, tf.unstack(losses, axis=1), strict=True):
            self._terms[f"{name}_loss"].update_state(values)
        mean = tf.math.divide_no_nan(tf.reduce_sum(losses, axis=0), all_rows)
        tasks = len(self.schema.tasks)
        self._terms["nll"].update_state(tf.reduce_sum(losses[:, :tasks], axis=1))
        return tf.reduce_sum(mean[:tasks]) + self.config.usr.global_weight * tf.reduce_sum(mean[tasks:])

    def _contrastive_losses(self, inputs: Inputs) -> tf.Tensor:
        """Of the batch's first rows, in every view: rows come shuffled, so the first are as good as any."""
        options = self.config.usr.contrastive_loss
        anchors = max(1, options.anchors // self._replicas)
        inputs = Inputs(*(part if part is None else part[:anchors] for part in inputs))
        shown = tf.broadcast_to(tf.range(self._scenarios), [tf.shape(inputs.candidate)[0], self._scenarios])
        trigger = self._trigger(inputs.query, shown)
        views = self._generate(inputs, trigger)
        augmented = None
        if options.variant == "augmented":
            values = {name: getattr(inputs, name) for name in ("request", "candidate", "item", "history")}
            noise = self._noise()
            dropped = {
                name: tf.nn.experimental.stateless_dropout(
                    value, options.feature_dropout, tf.random.experimental.stateless_fold_in(noise, number)
                )
                for number, (name, value) in enumerate(values.items())
                if value is not None
            }
            augmented = self._generate(inputs._replace(**dropped), trigger)
        total = 0.0
        for name, weight in (("interest", options.ie_weight), ("features", options.fg_weight)):
            if name not in self._contrastive:
                continue
            z, positive = (part and _vectors(part, name) for part in (views, augmented))
            with_history = tf.reduce_any(inputs.mask, axis=1) if name == "interest" else None
            summed: SummedLoss = self._contrastive[name](z, positive, with_history)
            self._terms[f"{name}_contrastive"].update_state(
                tf.math.divide_no_nan(summed.total, summed.count), summed.count
            )
            total += weight * tf.math.divide_no_nan(summed.total, sum_over_replicas(summed.count))
        return total


def _concat(parts: Sequence[tf.Tensor], like: tf.Tensor) -> tf.Tensor:
    """The parts side by side; no columns, and the rows of `like`, where there is no part.

    A part without columns is left out: its number of rows need not be the others'.
    """
    parts = [part for part in parts if part.shape[-1]]
    return tf.concat(parts, axis=-1) if parts else like[:, :0]


def _vectors(views: Views, name: str) -> tf.Tensor:
    """What the contrastive loss compares, `[B, V, d]`."""
    return views.interest if name == "interest" else tf.concat([views.request, views.candidate], axis=-1)


def _side_by_side(log_p: LogProbabilities) -> tf.Tensor:
    """`[B, labels]`, in the order of the model's label names."""
    return log_p.scenario if log_p.shared is None else tf.concat(log_p, axis=1)


def _nan_where_not_finite(inputs: Inputs, log_p: LogProbabilities) -> LogProbabilities:
    """The logs, NaN in the rows that read NaN or infinity.

    A ReLU may turn NaN into 0: that of oneDNN does on CPUs with AVX-512. The loss would stay finite, and the step
    would write NaN into weights.
    """
    read = [part for part in (inputs.request, inputs.candidate, inputs.query) if part is not None and part.shape[-1]]
    sums = tf.add_n([tf.reduce_sum(tf.cast(tf.stop_gradient(part), tf.float32), axis=1) for part in read])
    nan = tf.where(tf.math.is_finite(sums), 0.0, float("nan"))[:, tf.newaxis]
    return LogProbabilities(*(None if part is None else part + nan for part in log_p))
