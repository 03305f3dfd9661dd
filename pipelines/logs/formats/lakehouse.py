"""Delta and Iceberg tables as inputs: the Parquet files of the newest snapshot."""

import re
from collections.abc import Sequence
from typing import Any

from usr_tf.errors import InputError

_METADATA = re.compile(r"metadata/(?:v(?P<version>\d+)|(?P<number>\d+)-[^/]*)\.(?:gz\.)?metadata\.json$")


def snapshot_files(folder: str, names: Sequence[str]) -> list[str]:
    """Paths of the files that hold the rows of a table's newest snapshot; empty if the folder is no such table.

    Args:
      names: all files in the folder, relative to it.

    Raises:
      InputError: the library is not installed, the table is unreadable, or its rows are not those of whole Parquet
        files: deleted rows, renamed columns, other formats.
    """
    if any(name.startswith("_delta_log/") for name in names):
        return _delta_files(folder)
    metadata = [(int(match["version"] or match["number"]), name) for name in names if (match := _METADATA.match(name))]
    if metadata:
        return _iceberg_files(folder, f"{folder}/{max(metadata)[1]}")
    return []


def _delta_files(folder: str) -> list[str]:
    try:
        import deltalake
        from deltalake.exceptions import DeltaError
    except ImportError as error:
        raise _not_installed(folder, "Delta", "deltalake") from error
    try:
        table = deltalake.DeltaTable(folder)
        features = {*(table.protocol().reader_features or ())}
        mapping = table.metadata().configuration.get("delta.columnMapping.mode", "none")
        files = [_delta_path(folder, uri, table.table_uri) for uri in table.file_uris()]
        vectors = "deletionVectors" in features and _has_deletion_vectors(table)
    except (DeltaError, OSError, ValueError) as error:
        raise InputError(
            folder, f"no readable Delta table ({' '.join(str(error).split())})", "a Delta table"
        ) from error
    if vectors:
        raise InputError(folder, "a Delta table with deletion vectors", "one after REORG TABLE … APPLY (PURGE)")
    if mapping != "none":
        raise InputError(
            folder, f"a Delta table with column mapping by {mapping}", "one whose files have the columns' names"
        )
    if not files:
        raise InputError(folder, "a Delta table without rows", "at least one row")
    return files


def _delta_path(folder: str, uri: str, top: str) -> str:
    """Path of a file, of whose URI only the table's part is percent-encoded."""
    path, top = (each.removeprefix("file://").rstrip("/") for each in (uri, top))
    inside = path.removeprefix(f"{top}/")
    return path if inside == path else f"{folder.rstrip('/')}/{inside}"


def _has_deletion_vectors(table: Any) -> bool:
    import pyarrow as pa

    actions = pa.table(table.get_add_actions(flatten=True))
    columns = [name for name in actions.column_names if name.startswith(("deletionVector", "deletion_vector"))]
    return any(actions.column(name).null_count < len(actions) for name in columns)


def _iceberg_files(folder: str, metadata: str) -> list[str]:
    try:
        from pyiceberg.exceptions import ValidationError
        from pyiceberg.table import StaticTable
    except ImportError as error:
        raise _not_installed(folder, "Iceberg", "pyiceberg") from error
    try:
        table = StaticTable.from_metadata(metadata)
        tasks = list(table.scan().plan_files())
        names: dict[int, set[str]] = {}
        ids: dict[str, set[int]] = {}
        for schema in table.metadata.schemas:
            for field in schema.fields:
                names.setdefault(field.field_id, set()).add(field.name)
                ids.setdefault(field.name, set()).add(field.field_id)
    except (OSError, ValueError, ValidationError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(metadata, f"no readable Iceberg table ({reason})", "an Iceberg table") from error
    if any(task.delete_files for task in tasks):
        raise InputError(folder, "an Iceberg table with delete files", "one whose data files are rewritten")
    renamed = next((sorted(each) for each in names.values() if len(each) > 1), None)
    if renamed:
        raise InputError(
            folder, f"an Iceberg table whose column is named {' and '.join(renamed)}", "one without renamed columns"
        )
    again = next((name for name, columns in ids.items() if len(columns) > 1), None)
    if again:
        raise InputError(
            folder, f"an Iceberg table whose column {again} was dropped and added again", "one whose data files are new"
        )
    formats = {task.file.file_format.name for task in tasks} - {"PARQUET"}
    if formats:
        raise InputError(folder, f"an Iceberg table of {', '.join(sorted(formats))} files", "one of Parquet files")
    if not tasks:
        raise InputError(folder, "an Iceberg table without rows", "at least one row")
    return [task.file.file_path.removeprefix("file://") for task in tasks]


def _not_installed(folder: str, kind: str, package: str) -> InputError:
    return InputError(folder, f"a {kind} table", f"{package} installed to read it: pip install 'usr-tf[lakehouse]'")
