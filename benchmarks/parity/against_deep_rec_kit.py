"""Parity with `deep-rec-kit`: PEPNet, M2M, STAR and partitioned normalisation.

Its scenario networks read each row's scenario, as ours do, so a mixed batch goes through them as it is.

Where it differs from the papers (all in `recsys/layers/interaction.py`), its layers are put together as ours are:
`MetaAttention` has no softmax over the experts, and `MetaTower` no residual connection; `PartitionedNormalization` adds
its two gains, where one gets the product of ours, and takes a scenario without rows into its moving averages as NaN.
"""

import usr_tf  # noqa: F401  (before TensorFlow)

# isort: split
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tf_keras as keras
from recsys.layers.core import FeedForwardLayer
from recsys.layers.interaction import EPNet, MetaUnit, PartitionedNormalization, PPNet, StarTopologyFCN

from benchmarks.parity.comparison import (
    BACKBONE_OUTPUT,
    CANDIDATES,
    INPUTS,
    REQUESTS,
    ROWS,
    SCENARIO,
    SCENARIOS,
    TASKS,
    Array,
    Comparison,
    Network,
    backbone_output,
    build_backbone,
    networks,
    with_random_weights,
)
from usr_tf.backbones.pepnet import PPNet as OurPPNet
from usr_tf.backbones.star import STAR
from usr_tf.layers.meta_unit import MetaUnit as OurMetaUnit
from usr_tf.layers.partitioned_norm import PartitionedNormalization as OurNormalization

_ANY = tf.fill([ROWS], SCENARIOS)
"""The shared part of ours is to theirs a further scenario that every row has."""


def pepnet() -> tuple[Array, Array]:
    # The gates of ours have one hidden width; each of theirs has that of what it scales, the input or all tasks' units.
    units = INPUTS.shape[1] // TASKS
    ours = build_backbone("pepnet", scenario_embedding=4, gate_hidden=units * TASKS, tower=(units, units))
    embeddings = _of_each_row(ours._embedding, ours._any_embedding[0])
    theirs = []
    for embedding, ppnet in zip(embeddings, (ours._scenario_ppnet, ours._shared_ppnet), strict=True):
        epnet = EPNet()
        epnet([embedding, INPUTS])  # makes its layers
        _set(epnet.gate_nu.dense_layers, *networks(ours._epnet.weights))
        theirs += _ppnet(ppnet, epnet([embedding, INPUTS]))
    return backbone_output(ours), np.stack(theirs, axis=1)


def _ppnet(ours: OurPPNet, gated: tf.Tensor) -> list[tf.Tensor]:
    """The output `[B, h]` of each task."""
    theirs = PPNet(TASKS, ours.units, "relu")
    theirs([gated, INPUTS])  # makes its layers
    for task, tower in enumerate(theirs.dense_layers):
        _set(tower, [networks(dense.weights)[task][0] for dense in ours._dense])
    for gate, our_gate in zip(theirs.gate_nu, ours._gates, strict=True):
        _set(gate.dense_layers, *networks(our_gate.weights))
    return theirs([gated, INPUTS])


def m2m() -> tuple[Array, Array]:
    sizes = {"experts": 3, "expert": (10, 6), "scenario_embedding": 4, "task_embedding": 5}
    ours = build_backbone("m2m", **sizes, unit_depth=2, tower_depth=2)
    experts = tf.stack([_feed_forward(network, "relu", INPUTS) for network in networks(ours._experts.weights)], axis=1)
    (task_network,) = networks(ours._task_net.weights)
    tasks = _feed_forward(task_network, "leaky_relu", ours._tasks)
    theirs = []
    for knowledge in _of_each_row(ours._knowledge, ours._any_knowledge):
        for task in range(TASKS):
            compared = tf.concat([experts, tf.broadcast_to(tasks[task], experts.shape)], axis=-1)
            compared = _meta_unit(ours._attention_unit, compared, knowledge)
            scores = tf.linalg.matvec(compared, ours._attention_kernel[task])
            hidden = tf.linalg.matvec(experts, tf.nn.softmax(scores), transpose_a=True)
            for unit in ours._tower_units:
                hidden = tf.nn.leaky_relu(_meta_unit(unit, hidden, knowledge) + hidden)
            theirs.append(hidden)
    return backbone_output(ours), np.stack(theirs, axis=1)


def _meta_unit(ours: OurMetaUnit, inputs: tf.Tensor, knowledge: tf.Tensor) -> tf.Tensor:
    theirs = MetaUnit(ours.depth)
    theirs([inputs, knowledge])  # makes its layers
    (generators,) = networks(ours.weights)
    matrix = inputs.shape[-1] ** 2
    _set(theirs.weights_dense, [(kernel[:, :matrix], bias[:matrix]) for kernel, bias in generators])
    _set(theirs.bias_dense, [(kernel[:, matrix:], bias[matrix:]) for kernel, bias in generators])
    return theirs([inputs, knowledge])


def star() -> tuple[Array, Array]:
    """Out of training, so by the moving averages; without the auxiliary network, whose logit is not a hidden layer."""
    ours = build_backbone("star", network=(12, 10), tower=(8,), auxiliary=(), scenario_embedding=4)
    normalization = _normalization(ours._normalization)
    theirs = [
        _star(ours, task)([normalization([INPUTS, scenario]), scenario])
        for scenario in (SCENARIO, _ANY)
        for task in range(TASKS)
    ]
    return backbone_output(ours), np.stack(theirs, axis=1)


def _star(ours: STAR, task: int) -> StarTopologyFCN:
    """Their one network for the task: our network for all tasks, then the task's tower."""
    theirs = StarTopologyFCN(SCENARIOS + 1, [*ours.network, *ours.tower])
    theirs([INPUTS, SCENARIO])  # makes its layers
    center = [*ours._network._center, *(weight[task] for weight in ours._towers._center)]
    factors = [*ours._network._factors, *(weight[:, task] for weight in ours._towers._factors)]
    kernels = zip(theirs.shared_weights, theirs.domain_weights_list, center[::2], factors[::2], strict=True)
    for shared, own, kernel, factor in kernels:
        shared.assign([kernel])
        own.set_weights([_and_shared(factor, tf.ones_like(kernel)).reshape(SCENARIOS + 1, -1)])
    biases = zip(theirs.shared_bias, theirs.domain_bias_list, center[1::2], factors[1::2], strict=True)
    for shared, own, bias, term in biases:
        shared.assign([bias])
        own.set_weights([_and_shared(term, tf.zeros_like(bias))])
    return theirs


def partitioned_normalization() -> tuple[Array, Array]:
    """In training, so by the statistics of the batch."""
    ours = OurNormalization(SCENARIOS)
    parts = with_random_weights(lambda: ours((REQUESTS, CANDIDATES), SCENARIO, training=True), ours)
    normalization = _normalization(ours)
    theirs = [normalization([INPUTS, scenario], training=True) for scenario in (SCENARIO, _ANY)]
    return np.stack([np.concatenate(part, axis=1) for part in parts], axis=1), np.stack(theirs, axis=1)


def _normalization(ours: OurNormalization) -> PartitionedNormalization:
    theirs = PartitionedNormalization(SCENARIOS + 1)
    theirs([INPUTS, SCENARIO])  # makes its weights
    for weight in (theirs.global_gamma, theirs.global_beta):
        weight.assign(tf.zeros_like(weight))
    theirs.domain_gamma.assign(_and_shared(ours.gamma * ours.scenario_gamma, ours.gamma))
    theirs.domain_beta.assign(_and_shared(ours.beta + ours.scenario_beta, ours.beta))
    moving = zip(ours.scenario_moving, ours.moving, strict=True)
    _, means, variances = (_and_shared(own, shared) for own, shared in moving)
    for layer, *statistics in zip(theirs.bn_list, means, variances, strict=True):
        layer.set_weights(statistics)
    return theirs


def _and_shared(own: tf.Tensor, shared: tf.Tensor) -> Array:
    """`[K + 1, …]` from each scenario's `[K, …]` and the shared `[…]`."""
    return np.concatenate([own, [shared]])


def _of_each_row(own: tf.Variable, shared: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """`[B, e]` twice: the vector of the row's own scenario, and the shared one."""
    return tf.gather(own, SCENARIO), tf.broadcast_to(shared, [ROWS, shared.shape[0]])


def _feed_forward(network: Network, activation: str, inputs: tf.Tensor) -> tf.Tensor:
    theirs = FeedForwardLayer([bias.size for _, bias in network], activation)
    theirs(inputs)  # makes its weights
    _set(theirs.dense_layers, network)
    return theirs(inputs)


def _set(theirs: Sequence[keras.layers.Dense], network: Network) -> None:
    for dense, weights in zip(theirs, network, strict=True):
        dense.set_weights(weights)


COMPARISONS = [
    Comparison("STAR", BACKBONE_OUTPUT, star),
    Comparison("STAR's normalisation", "in training; their gain the product of ours", partitioned_normalization),
    Comparison("M2M", f"{BACKBONE_OUTPUT}; softmax and residual put in", m2m),
    Comparison("PEPNet", BACKBONE_OUTPUT, pepnet),
]
