"""Match signals: similarities of a request's feature and a candidate's, as TensorFlow ops.

Every function broadcasts: it takes B rows of both sides in the pipeline, and in serving one row of the request and N
of the candidates. The request's side is tokenized once.
"""

import functools
from typing import NamedTuple

import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_transform import tf_utils

from pipelines.transform.history_match import recency
from usr_tf.feature_types import NormalForm
from usr_tf.schema import PAST_QUERIES, PAST_QUERIES_AGE, Feature, Match, MatchKind, Schema
from usr_tf.tokens import Values, fingerprint, map_values, text_form

WORDS = 32
"""Words of a value that are compared."""
CHARACTERS = 98
"""Characters of a value whose trigrams are compared."""
_FORMS: tuple[NormalForm, ...] = ("none", "nfc", "nfkc")
"""Normal forms, each wider than the one before: it makes all equal that the other one does."""
_K1, _B = 1.2, 0.75
"""BM25's parameters, those of Lucene."""


class Documents(NamedTuple):
    """Statistics of a candidate feature's words in the training split."""

    count: tf.Tensor
    """Rows, float32 scalar."""
    length: tf.Tensor
    """Mean number of words, float32 scalar."""
    frequencies: tf.Tensor
    """File of the rows that hold each word."""


class Texts:
    """Tokens of one feature's values, `[B, n]` each: every distinct value of the batch is tokenized once.

    Args:
      form: the normal form to bring the values to; None for texts that have it.
    """

    def __init__(self, values: Values, feature: Feature, form: NormalForm | None = None):
        if isinstance(values, tf.SparseTensor):
            values = tf.strings.reduce_join(tf.RaggedTensor.from_sparse(values), axis=-1, separator=" ")
        distinct_values, self._places = tf.unique(values)
        if form:
            distinct_values = text_form(distinct_values, form)
        self._words = words(distinct_values, feature)

    @functools.cached_property
    def words(self) -> tf.RaggedTensor:
        """The words of each row."""
        return tf.gather(self._words, self._places)

    @functools.cached_property
    def fingerprints(self) -> tf.Tensor:
        """Fingerprints of the words."""
        return tf.gather(fingerprints(self._words), self._places)

    @functools.cached_property
    def distinct(self) -> tf.Tensor:
        """The fingerprints, each once."""
        return tf.gather(distinct(fingerprints(self._words)), self._places)

    @functools.cached_property
    def trigrams(self) -> tf.Tensor:
        return tf.gather(trigrams(self._words), self._places)

    @functools.cached_property
    def distinct_trigrams(self) -> tf.Tensor:
        return tf.gather(distinct(trigrams(self._words)), self._places)

    def frequencies(self, documents: Documents) -> tf.Tensor:
        """float32 `[B, n]`: in how many rows of training each word stands, in the places of `distinct`."""
        found = tft.apply_vocabulary(self._words.flat_values, documents.frequencies, lookup_fn=_frequency)
        found = tf.cast(self._words.with_flat_values(found).to_tensor(0), tf.float32)
        return tf.minimum(tf.gather(found, self._places), documents.count)


def match_signals(inputs: dict[str, Values], schema: Schema) -> dict[str, tf.Tensor]:
    """`[B]` of each `match_<name>_<kind>` of the schema. To be called while TensorFlow Transform traces.

    Args:
      inputs: raw columns, strings in their features' normal forms.
    """

    @functools.cache
    def texts(name: str, form: NormalForm) -> Texts:
        return Texts(inputs[name], schema.features[name], _missing_form(name, form, schema))

    signals = {}
    for name, match in schema.match.items():
        first, second = match.features
        form = _form_of(match, schema)
        kinds = schema.match_kinds(match)
        if first == PAST_QUERIES:
            query = schema.features["query"]
            queries = inputs[first]
            if missing := _missing_form("query", form, schema):
                queries = map_values(lambda texts, form=missing: text_form(texts, form), queries)
            found = past_queries(queries, inputs[PAST_QUERIES_AGE], query, texts(second, form).fingerprints)
        elif kinds == ("cosine",):
            found = {"cosine": cosine(inputs[first], inputs[second])}
        else:
            found = _similarities(name, kinds, texts(first, form), texts(second, form))
        signals |= {f"match_{name}_{kind}": found[kind] for kind in kinds}
    return signals


def _form_of(match: Match, schema: Schema) -> NormalForm:
    """The wider normal form of a match's features, by which the words of both are compared."""
    names = ("query" if name == PAST_QUERIES else name for name in match.features)
    return max((schema.normal_form(name) for name in names), key=_FORMS.index)


def _missing_form(name: str, form: NormalForm, schema: Schema) -> NormalForm | None:
    """The form that the values of a feature have to be brought to for a match; None for texts that have it."""
    has_it = schema.features[name].kind.text and schema.normal_form(name) == form
    return None if has_it else form


def _similarities(
    name: str, kinds: tuple[MatchKind, ...], request: Texts, candidate: Texts
) -> dict[MatchKind, tf.Tensor]:
    times = occurrences(request.distinct, candidate.fingerprints)
    found = tf.minimum(times, 1.0)
    similarities: dict[MatchKind, tf.Tensor] = {}
    for kind in kinds:
        if kind == "overlap":
            similarities[kind] = tf.math.log1p(tf.reduce_sum(found, axis=1))
        elif kind == "coverage":
            similarities[kind] = _share(found, request.distinct)
        elif kind == "ngram":
            grams = request.distinct_trigrams
            similarities[kind] = _share(tf.minimum(occurrences(grams, candidate.trigrams), 1.0), grams)
        elif kind == "bm25":
            documents = _documents(f"match_{name}_words", candidate.words)
            similarities[kind] = bm25(times, candidate.fingerprints, request.frequencies(documents), documents)
    return similarities


def past_queries(
    queries: tf.SparseTensor, ages: tf.SparseTensor, query: Feature, document: tf.Tensor
) -> dict[MatchKind, tf.Tensor]:
    """How the user's earlier queries match a candidate, `[B]` each.

    | figure | value |
    | --- | --- |
    | `latest` | share of the newest query's words that stand in the candidate |
    | `best` | the largest such share of all earlier queries |
    | `recency` | recency (`history_match`) of the newest query, times that share; the largest such product |

    Args:
      queries: texts `[B, Q]` in their normal form, newest last.
      ages: ms, `[B, Q]`.
      document: fingerprints of the candidate's words `[B, m]`.
    """
    split = words(queries.values, query)
    lengths = tf.RaggedTensor.from_sparse(queries).row_lengths()
    tokens = tf.RaggedTensor.from_row_lengths(distinct(fingerprints(split)), lengths).to_tensor(0)  # [B, Q, n]
    same = tf.equal(tokens[..., tf.newaxis], document[:, tf.newaxis, tf.newaxis, :]) & (tokens > 0)[..., tf.newaxis]
    found = tf.reduce_sum(tf.cast(tf.reduce_any(same, axis=3), tf.float32), axis=2)
    shares = tf.math.divide_no_nan(found, tf.reduce_sum(tf.cast(tokens > 0, tf.float32), axis=2))
    recencies = tf.sparse.to_dense(tf.sparse.map_values(recency, ages))
    newest = tf.one_hot(tf.cast(lengths, tf.int32) - 1, tf.shape(shares)[1])
    return {
        "latest": tf.reduce_sum(shares * newest, axis=1),
        "best": tf.maximum(tf.reduce_max(shares, axis=1), 0.0),  # the largest of none is the least number
        "recency": tf.maximum(tf.reduce_max(shares * recencies, axis=1), 0.0),
    }


def words(texts: tf.Tensor, feature: Feature) -> tf.RaggedTensor:
    """Words of texts `[B]` in their normal form, `[B, (n)]`; characters of a feature whose tokenizer is `character`."""
    if feature.tokenizer == "character":
        split = tf.strings.unicode_split(texts, "UTF-8", errors="replace")
        split = tf.ragged.boolean_mask(split, tf.not_equal(split, " "))
    else:
        split = tf.strings.split(texts)
    return split[:, :WORDS]


def trigrams(split: tf.RaggedTensor) -> tf.Tensor:
    """int64 `[B, n]` character trigrams of each row's words, a blank at either end of a word; 0 for padding.

    A trigram is its three code points, of 21 bits each.
    """
    texts = tf.strings.join([" ", tf.strings.reduce_join(split, axis=-1, separator=" "), " "])
    codes = tf.strings.unicode_decode(texts, "UTF-8", errors="replace").to_tensor(0)[:, :CHARACTERS]
    codes = tf.cast(tf.pad(codes, [[0, 0], [0, 2]]), tf.int64)
    first, second, third = codes[:, :-2], codes[:, 1:-1], codes[:, 2:]
    within_a_word = tf.not_equal(second, ord(" ")) & (third > 0)
    return tf.where(within_a_word, (first * 2**21 + second) * 2**21 + third, tf.zeros_like(first))


def fingerprints(strings: tf.RaggedTensor) -> tf.Tensor:
    """int64 `[B, n]` fingerprints of strings; 0 pads."""
    return strings.with_flat_values(fingerprint(strings.flat_values)).to_tensor(0)


def distinct(tokens: tf.Tensor) -> tf.Tensor:
    """The tokens `[B, n]`, 0 in place of each one's second and further occurrences."""
    same = tf.equal(tokens[:, :, tf.newaxis], tokens[:, tf.newaxis, :])
    before = tf.linalg.band_part(tf.cast(same, tf.float32), -1, 0)
    return tf.where(tf.reduce_sum(before, axis=2) > 1.0, tf.zeros_like(tokens), tokens)


def occurrences(query: tf.Tensor, document: tf.Tensor) -> tf.Tensor:
    """float32 `[B, n]`: how often each token of the query `[B, n]` stands in the document `[B, m]`; 0 for padding."""
    same = tf.equal(query[:, :, tf.newaxis], document[:, tf.newaxis, :]) & (query[:, :, tf.newaxis] > 0)
    return tf.reduce_sum(tf.cast(same, tf.float32), axis=2)


def cosine(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Cosine of vectors `[B, w]`; 0 where one of them is all zeros or holds NaN or infinity."""
    first, second = _largest_is_one(finite(first)), _largest_is_one(finite(second))
    norms = tf.norm(first, axis=1) * tf.norm(second, axis=1)
    return tf.math.divide_no_nan(tf.reduce_sum(first * second, axis=1), norms)


def finite(vectors: tf.Tensor) -> tf.Tensor:
    """The vectors `[B, w]`, zeros in place of those with NaN or infinity."""
    whole = tf.reduce_all(tf.math.is_finite(vectors), axis=1, keepdims=True)
    return tf.where(whole, vectors, tf.zeros_like(vectors))


def _largest_is_one(vectors: tf.Tensor) -> tf.Tensor:
    """The vectors `[B, w]` with a largest component of 1 or -1, whose squares no float32 is too small for; or zeros."""
    return tf.math.divide_no_nan(vectors, tf.reduce_max(tf.abs(vectors), axis=1, keepdims=True))


def bm25(times: tf.Tensor, document: tf.Tensor, frequency: tf.Tensor, documents: Documents) -> tf.Tensor:
    """`log(1 + BM25)` `[B]` of a query's distinct words in a document (Robertson and Zaragoza, 2009).

    Args:
      times: occurrences of each word of the query, float32 `[B, n]`.
      document: fingerprints of the candidate's words `[B, m]`.
      frequency: rows of training that hold each word of the query, float32 `[B, n]`.
    """
    rarity = tf.math.log1p((documents.count - frequency + 0.5) / (frequency + 0.5))
    length = tf.reduce_sum(tf.cast(document > 0, tf.float32), axis=1, keepdims=True)
    saturation = times + _K1 * (1 - _B + _B * tf.math.divide_no_nan(length, documents.length))
    return tf.math.log1p(tf.reduce_sum(rarity * (_K1 + 1) * times / saturation, axis=1))


def _documents(name: str, candidate: tf.RaggedTensor) -> Documents:
    lengths = tf.cast(candidate.row_lengths(), tf.float32)
    vocabulary = tft.vocabulary(candidate.to_sparse(), store_frequency=True, vocab_filename=name, name=name)
    return Documents(tft.sum(tf.ones_like(lengths)), tft.mean(lengths), vocabulary)


def _frequency(strings: tf.Tensor, file: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """How often each string stands in a vocabulary's file of `frequency word` lines, and the table's size."""

    def table(path: tf.Tensor) -> tf.lookup.StaticHashTable:
        initializer = tf.lookup.TextFileInitializer(path, tf.string, 1, tf.int64, 0, delimiter=" ")
        return tf.lookup.StaticHashTable(initializer, 0)

    return tf_utils.construct_and_lookup_table(table, file, strings)


def _share(found: tf.Tensor, query: tf.Tensor) -> tf.Tensor:
    """`[B]`: found tokens per token of the query; 0 without any."""
    return tf.math.divide_no_nan(tf.reduce_sum(found, axis=1), tf.reduce_sum(tf.cast(query > 0, tf.float32), axis=1))
