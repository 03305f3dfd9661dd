"""BigQuery reader on Google's client, row by row, without a query: `bigquery:PROJECT.DATASET.TABLE`.

Credentials are the application's default ones.
"""

import contextlib
import fnmatch
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from usr_tf.errors import InputError

SCHEME = "bigquery:"


def find_tables(name: str) -> list[tuple[str, int]]:
    """Paths and sizes (bytes) of the tables that match `bigquery:PROJECT.DATASET.PATTERN`, by name.

    Raises:
      InputError: the name has other parts, or BigQuery does not let us look there.
    """
    project, _, rest = name.removeprefix(SCHEME).partition(".")
    dataset, _, pattern = rest.partition(".")
    if not (project and dataset and pattern):
        raise InputError(name, "other parts", f"{SCHEME}PROJECT.DATASET.TABLE, where TABLE may be a pattern")
    with _client(name) as client:
        names = sorted(table.table_id for table in client.list_tables(f"{project}.{dataset}"))
        found = [f"{project}.{dataset}.{table}" for table in names if fnmatch.fnmatchcase(table, pattern)]
        return [(SCHEME + table, client.get_table(table).num_bytes) for table in found]


def read_table(path: str, columns: Sequence[str] | None, advance: Callable[[int], object]) -> Iterator[pa.RecordBatch]:
    """Rows of a table, in no order.

    Args:
      columns: The top-level columns to read, where they exist; all by default.
      advance: Called with the approximate number of bytes read since the last call.

    Raises:
      InputError: BigQuery does not let us read it.
    """
    with _client(path) as client:
        table = client.get_table(path.removeprefix(SCHEME))
        wanted = [field for field in table.schema if columns is None or field.name in columns]
        for batch in client.list_rows(table, selected_fields=wanted).to_arrow_iterable():
            yield batch
            advance(batch.nbytes)


@contextlib.contextmanager
def _client(place: str) -> Iterator[Any]:
    """BigQuery client whose errors are input errors."""
    try:
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError
        from google.cloud import bigquery
    except ImportError as error:
        raise InputError(place, f"no client for BigQuery ({error})", "google-cloud-bigquery installed") from error
    try:
        yield bigquery.Client()
    except (GoogleAPIError, GoogleAuthError) as error:
        raise InputError(place, f"no way to read it ({error})", "a table that you may read") from error
