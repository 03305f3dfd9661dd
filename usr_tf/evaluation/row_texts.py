"""Query and title of a few rows of a split, in words."""

from collections.abc import Mapping, Sequence

import numpy as np

from usr_tf.data import Data, Split
from usr_tf.data.raw_values import RawValues
from usr_tf.evaluation.report import RowText


def row_texts(data: Data, split: Split, rows: Sequence[int], batch_size: int, raw: RawValues) -> dict[int, RowText]:
    """Texts of rows by their numbers in `data.evaluation(batch_size, split)`.

    The query is that of all its features with a vocabulary, the title that of the item's text features. A word that
    the vocabulary lacks is `(unknown)`: rows hold ids and not the log's own words.

    Raises:
      InputError: a file of the split is broken or gone.
    """
    queries = [name for name in data.schema.features_of("query") if raw.has_words(name)]
    items = data.schema.features_of("item").items()
    titles = [name for name, feature in items if feature.kind.tokenize and raw.has_words(name)]
    if not queries and not titles:
        return {}

    def words(features: Mapping[str, np.ndarray], names: Sequence[str]) -> str:
        return " · ".join(filter(None, (raw.text(name, features[name]) for name in names)))

    selected = data.selected(split, rows, batch_size)
    return {row: RowText(words(features, queries), words(features, titles)) for row, features in selected.items()}
