"""Measurement of torch-rechub 0.9, as documented or tuned by hand.

Tuned: one fused table with sparse gradients and row-wise Adagrad, batches sliced from tensors in memory, bfloat16 where
the CPU multiplies it; and the same without batch normalisation, which its networks have and ours have not.
"""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
import tqdm
from torch.nn import functional
from torch_rechub.basic.features import DenseFeature, SequenceFeature, SparseFeature
from torch_rechub.models.multi_task import MMOE, PLE, SharedBottom
from torch_rechub.trainers import MTLTrainer
from torch_rechub.utils.data import DataGenerator

from benchmarks.training import measure
from benchmarks.training.measure import BATCH, EMBEDDING, Clock
from benchmarks.training.peers.arrays import (
    ITEM_FIELD,
    Arrays,
    Split,
    field_names,
    load_arrays,
    number_names,
    parse_arguments,
)

_KINDS = ["classification"] * len(measure.TASKS)
_STD = 0.01  # of tuned tables: the best AUC of 1e-4, 0.01, 0.03 and 0.1


def main() -> None:
    arguments = parse_arguments(__doc__, ("default", "tuned", "tuned_without_norm"))
    torch.manual_seed(measure.SEED)
    torch.set_num_threads(measure.CORES)
    arrays = load_arrays(arguments.arrays)
    model, clock = make_model(arrays, arguments.backbone), Clock(arguments.steps)
    if arguments.variant == "tuned_without_norm":
        _remove_batch_norm(model)
    tuned = arguments.variant != "default"
    probabilities = (train_tuned if tuned else train_as_documented)(model, arrays, clock)
    auc = None
    if arguments.steps is None:
        auc = measure.auc_by_scenario(arrays.test.scenario, arrays.test.labels, probabilities)
    measure.report(clock.examples_per_second, auc, bfloat16=tuned and measure.cpu_has_bfloat16())


def make_model(arrays: Arrays, backbone: str) -> torch.nn.Module:
    features = [
        SparseFeature(name, size, EMBEDDING) for name, size in zip(field_names(arrays.train), arrays.sizes, strict=True)
    ]
    items = arrays.sizes[field_names(arrays.train).index(ITEM_FIELD)]
    features.append(SequenceFeature("history", items, EMBEDDING, "mean", shared_with=ITEM_FIELD, padding_idx=0))
    features += [DenseFeature(name) for name in number_names(arrays.train)]
    layers, towers = {"dims": list(measure.LAYERS)}, [{"dims": list(measure.TOWER)} for _ in _KINDS]
    if backbone == "shared_bottom":
        return SharedBottom(features, _KINDS, layers, towers)
    if backbone == "mmoe":
        return MMOE(features, _KINDS, measure.EXPERTS, layers, towers)
    return PLE(features, _KINDS, measure.LEVELS, 1, 1, layers, towers)


def train_as_documented(model: torch.nn.Module, arrays: Arrays, clock: Clock) -> np.ndarray:
    """Trains an epoch, and gives the probabilities of the test split."""
    train, test = ({**split.columns(), "labels": split.labels} for split in (arrays.train, arrays.test))
    y, y_test = train.pop("labels"), test.pop("labels")
    loader, _, _ = DataGenerator(train, y).generate_dataloader(test, y_test, test, y_test, batch_size=BATCH)
    trainer = MTLTrainer(model, _KINDS)
    with _without_progress_bars():
        trainer.train_one_epoch(clock.watch(loader))
    model.eval()
    with torch.no_grad():
        features = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in test.items()}
        return model(features).numpy()


def train_tuned(model: torch.nn.Module, arrays: Arrays, clock: Clock) -> np.ndarray:
    """Trains an epoch, and gives the probabilities of the test split."""
    del model.embedding.embed_dict  # which the fused table stands in for
    model.embedding = _FusedEmbedding(arrays)
    table = model.embedding.table.weight
    dense = [weight for weight in model.parameters() if weight is not table]
    adam = torch.optim.Adam(dense, measure.LEARNING_RATE, fused=True)
    adagrad = _RowAdagrad(table)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=measure.cpu_has_bfloat16())
    model.train()
    for features, labels in clock.watch(_slices(arrays.train)):
        adam.zero_grad(set_to_none=True)
        table.grad = None
        with autocast:
            probabilities = model(features)
        losses = functional.binary_cross_entropy(probabilities.float(), labels, reduction="none")
        losses.mean(dim=0).sum().backward()
        adam.step()
        adagrad.step()
    model.eval()
    with torch.no_grad(), autocast:
        return np.concatenate([model(features).float().numpy() for features, _ in _slices(arrays.test)])


def _remove_batch_norm(model: torch.nn.Module) -> None:
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, torch.nn.BatchNorm1d):
                setattr(parent, name, torch.nn.Identity())


class _FusedEmbedding(torch.nn.Module):
    """One table for all fields, in place of the model's own embedding layer. `[B, 21·16 + 16 + 5]`."""

    def __init__(self, arrays: Arrays):
        super().__init__()
        starts = np.cumsum([0, *arrays.sizes[:-1]])
        self.table = torch.nn.Embedding(sum(arrays.sizes), EMBEDDING, sparse=True)
        torch.nn.init.normal_(self.table.weight, std=_STD)
        self.register_buffer("starts", torch.from_numpy(starts))
        self._items = int(starts[field_names(arrays.train).index(ITEM_FIELD)])
        with torch.no_grad():
            self.table.weight[self._items] = 0  # padding

    def forward(self, x: dict[str, torch.Tensor], features: list, squeeze_dim: bool = False) -> torch.Tensor:
        ids, history = x["ids"] + self.starts, x["history"]
        vectors = self.table(torch.cat([ids, history + self._items], dim=1))
        fields, items = vectors.split([ids.shape[1], history.shape[1]], dim=1)
        real = (history != 0).unsqueeze(2)
        mean = (items * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)
        return torch.cat([fields.flatten(1), mean, x["numbers"]], dim=1)


class _RowAdagrad:
    """Adagrad of the rows of a batch: deduplicates once, then touches each row once.

    `torch.optim.Adagrad` does the same by sparse tensors, which costs more passes over them.
    """

    def __init__(self, table: torch.nn.Parameter):
        self._table = table
        self._sums = torch.full_like(table, measure.INITIAL_ACCUMULATOR)

    @torch.no_grad()
    def step(self) -> None:
        gradient = self._table.grad
        rows, place = torch.unique(gradient._indices()[0], return_inverse=True)
        summed = torch.zeros(len(rows), EMBEDDING).index_add_(0, place, gradient._values())
        sums = self._sums.index_select(0, rows).addcmul_(summed, summed)
        self._sums.index_copy_(0, rows, sums)
        self._table.index_add_(0, rows, summed.div_(sums.sqrt_()), alpha=-measure.TABLE_LEARNING_RATE)


def _slices(split: Split) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
    whole = {name: torch.from_numpy(getattr(split, name)) for name in ("ids", "numbers", "history", "labels")}
    for start in range(0, len(split.labels), BATCH):
        features = {name: values[start : start + BATCH] for name, values in whole.items()}
        yield features, features.pop("labels")


@contextlib.contextmanager
def _without_progress_bars() -> Iterator[None]:
    """The trainer's own go to standard output and error; its last line would stand beside the figure."""
    original = tqdm.tqdm
    tqdm.tqdm = lambda batches, **_: batches
    try:
        yield
    finally:
        tqdm.tqdm = original


if __name__ == "__main__":
    main()
