"""Past searches: the queries of each user's earlier requests, as of each impression."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.join.counter_keys import normalized_keys
from pipelines.join.timeline import Timeline
from usr_tf.schema import PAST_QUERIES, PAST_QUERIES_AGE, REQUEST, TIMESTAMP, USER, Schema

_QUERY = "query"


class PastQueries:
    """The earlier queries of a table's impressions, made into columns a slice at a time.

    An impression gets the queries of its user's other requests with a time strictly before its own: one a request,
    newest last, at most `history.queries.max_length`. The request's first impression that has a query, by time, gives
    the query and the time. Blank queries count as none.

    Args:
      impressions: of whole users, and all of them.
    """

    def __init__(self, impressions: pa.Table, schema: Schema):
        assert schema.history.queries
        rows = impressions.select([USER, REQUEST, TIMESTAMP, _QUERY]).to_pandas()
        rows["user"], users = pd.factorize(rows[USER])
        rows["request"] = rows.groupby(["user", REQUEST], sort=False).ngroup()
        queries = impressions.column(_QUERY).combine_chunks()
        keys = pc.utf8_trim_whitespace(normalized_keys(queries, _QUERY, schema))
        asked = pc.fill_null(pc.not_equal(keys, ""), False).to_numpy(zero_copy_only=False)
        # What ties are decided by is the same wherever the rows stand.
        first = rows[asked].sort_values(["user", TIMESTAMP, REQUEST, _QUERY], kind="stable").drop_duplicates("request")
        self._times = first[TIMESTAMP].to_numpy()
        self._queries = queries.take(pa.array(first.index.to_numpy()))
        self._shown_at = rows[TIMESTAMP].to_numpy()
        user = rows["user"].to_numpy()
        timeline = Timeline(len(users), self._shown_at)
        places = timeline.places(first["user"].to_numpy(), self._times)
        start = np.searchsorted(places, timeline.starts(user))
        end = np.searchsorted(places, timeline.places(user, self._shown_at))
        of_request = np.full(rows["request"].max() + 1 if len(rows) else 0, len(first), np.int64)
        of_request[first["request"].to_numpy()] = np.arange(len(first))
        self._own = of_request[rows["request"].to_numpy()]
        self._end = end - (self._own < end)  # as if the own request's query were taken out
        self._begin = np.maximum(start, self._end - schema.history.queries.max_length)

    def columns(self, start: int, stop: int) -> dict[str, pa.Array]:
        """Columns of impressions `[start, stop)`: a list of queries and one of their ages (ms, int64) for each."""
        begin, counts = self._begin[start:stop], (self._end - self._begin)[start:stop]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        index = np.arange(offsets[-1]) + np.repeat(begin - offsets[:-1], counts)
        index += index >= np.repeat(self._own[start:stop], counts)
        ages = np.repeat(self._shown_at[start:stop], counts) - self._times[index]
        places = pa.array(offsets, pa.int32())
        return {
            PAST_QUERIES: pa.ListArray.from_arrays(places, self._queries.take(pa.array(index))),
            PAST_QUERIES_AGE: pa.ListArray.from_arrays(places, pa.array(ages, pa.int64())),
        }
