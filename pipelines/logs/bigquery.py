"""BigQuery tables as inputs, read with Beam's connector through the Storage Read API.

Credentials are the application's default ones.
"""

import contextlib
import fnmatch
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from usr_tf.errors import InputError

_SCHEME = "bigquery:"


def is_table(name: str) -> bool:
    """Whether an input names a BigQuery table, `bigquery:PROJECT.DATASET.TABLE`."""
    return name.startswith(_SCHEME)


def parse_name(name: str) -> tuple[str, str, str]:
    """Project, dataset and table of `bigquery:PROJECT.DATASET.TABLE`.

    Raises:
      InputError: the name has other parts.
    """
    parts = name.removeprefix(_SCHEME).split(".", 2)
    if len(parts) != 3 or not all(parts):
        raise InputError(name, "other parts", f"{_SCHEME}PROJECT.DATASET.TABLE")
    return parts[0], parts[1], parts[2]


def look_up(name: str) -> Any:
    """Google's description of a table: its `schema`, a list of fields, and `num_bytes`, not compressed.

    Raises:
      InputError: the name has other parts, or BigQuery does not let us look there.
    """
    table = ".".join(parse_name(name))
    with _client(name) as client:
        return client.get_table(table)


def find_tables(name: str) -> list[tuple[str, int]]:
    """Path and size (bytes) of the tables that match `bigquery:PROJECT.DATASET.PATTERN`, by name.

    Raises:
      InputError: as `look_up`.
    """
    project, dataset, pattern = parse_name(name)
    with _client(name) as client:
        names = sorted(table.table_id for table in client.list_tables(f"{project}.{dataset}"))
        found = [f"{_SCHEME}{project}.{dataset}.{each}" for each in names if fnmatch.fnmatchcase(each, pattern)]
    return [(table, look_up(table).num_bytes) for table in found]


def read_table(path: str, columns: Sequence[str] | None, advance: Callable[[int], object]) -> Iterator[pa.RecordBatch]:
    """The rows of a table, in no order.

    Args:
      columns: the top-level columns to read, where they exist; all by default.
      advance: receives how many more bytes have been read, about.

    Raises:
      InputError: as `look_up`.
    """
    table = look_up(path)
    with _client(path) as client:
        wanted = [field for field in table.schema if columns is None or field.name in columns]
        for batch in client.list_rows(table, selected_fields=wanted).to_arrow_iterable():
            yield batch
            advance(batch.nbytes)


@contextlib.contextmanager
def _client(place: str) -> Iterator[Any]:
    """A client, whose refusals are errors of the input."""
    try:
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError
        from google.cloud import bigquery
    except ImportError as error:
        raise InputError(place, f"no client for BigQuery ({error})", "google-cloud-bigquery installed") from error
    try:
        yield bigquery.Client()
    except (GoogleAPIError, GoogleAuthError) as error:
        found = f"no way to read it ({' '.join(str(error).split())[:200]})"
        raise InputError(place, found, "a table that you may read") from error
