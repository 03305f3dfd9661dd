"""Interface of feature types: what the `type` of a feature in `schema.yaml` means."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from usr_tf.schema import Feature

Value = Literal["string", "strings", "number", "numbers"]
"""Raw value of a row, in logs and requests."""
Input = Literal["id", "ids", "number", "vector"]
"""What the model reads of a row: one id, any number of ids, one number, or `width` numbers."""

NormalForm = Literal["nfc", "nfkc", "none"]
"""Unicode normal form of strings."""

KEYS_OF_IDS = frozenset({"normalize", "min_count", "vocabulary_size", "hash_buckets", "oov_buckets", "embedding_size"})
"""Keys that say what a feature's ids are, and how wide their vectors."""
ID_KEYS = KEYS_OF_IDS | {"shares"}
"""Keys of every feature with ids."""

Tokenize = Callable[[Any, "Feature"], Any]
CountTokens = Callable[[Any, "Feature"], Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureType:
    """One entry of `FEATURE_TYPES`. Its functions import TensorFlow or Arrow when called: the schema needs neither."""

    name: str
    """`type` in `schema.yaml`."""
    value: Value
    """Raw value of a row. Its log column (Arrow type), its raw column in the join, its parsing specification, and its
    input in a request (shape, dtype, JSON) follow from it."""
    input: Input
    """What the transform makes of it; the way `stats.json` measures it follows from it too."""
    keys: frozenset[str]
    """Keys that a feature of the type may have beside `group`, `type` and `in_history`."""
    required: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Keys that it must have, each with its meaning, for errors."""
    in_history: bool = False
    """Whether the actions of a history may carry it (`in_history` of an item feature)."""
    text: bool = False
    """Whether a value is a text: its case and its blanks tell no two apart, and its normal form is NFC by default."""
    length: int = 1
    """Default of `max_length`: ids of a row that are kept."""
    unit: str = "value"
    """What an id stands for, unless a `tokenizer` says so."""
    tokenize: Tokenize | None = None
    """Function from strings `[B]` in their normal form, and the feature, to the ragged `[B, n]` strings that get an id
    each."""
    count_tokens: CountTokens | None = None
    """Function from an Arrow array of such strings, and the feature, to how many `tokenize` makes of each, int64."""

    @property
    def has_ids(self) -> bool:
        """Whether its values become ids."""
        return self.input in ("id", "ids")

    @property
    def several(self) -> bool:
        """Whether a raw value is a list."""
        return self.value in ("strings", "numbers")
