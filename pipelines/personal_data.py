"""Jobs that edit the users of a log directory: removal of users, and pseudonyms in place of ids.

They run as `usr-tf forget` and `usr-tf pseudonymize`. docs/privacy.md has what else to delete.
"""

import functools
from collections.abc import Collection, Sequence

import apache_beam as beam
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

from pipelines.beam.file_system import match_in
from pipelines.beam.job import run
from pipelines.beam.options import make_pipeline
from pipelines.beam.output import SCHEMA, read_json, read_schema, write_json
from pipelines.logs.columns import layout_of
from pipelines.logs.inputs import find_tables
from pipelines.logs.user_ids import Counts, Edit, check_format, copy_file, edit_file
from usr_tf.errors import InputError
from usr_tf.pseudonyms import pseudonym
from usr_tf.schema import USER

WITHOUT_USERS = ("items",)
"""Tables that have no user ids."""

Rows = dict[str, dict[str, int]]
"""By table, rows read, written, removed and unreadable."""


def forget(logs_dir: str, out: str, users: Collection[str], beam_args: Sequence[str] = ()) -> Rows:
    """Writes a log directory without the rows of some users: impressions, actions and the users' own rows.

    Returns:
      Row counts, which `OUT/forget.json` holds too. It does not hold the ids.

    Raises:
      InputError: unreadable logs, files other than JSON and Parquet, or `out` is taken or cannot be written.
    """
    return _edit(logs_dir, out, functools.partial(_unless_in, frozenset(users)), "forget", beam_args)


def pseudonymize(logs_dir: str, out: str, key: bytes, beam_args: Sequence[str] = ()) -> Rows:
    """Writes a log directory with pseudonyms (`usr_tf.pseudonyms`) in place of user ids.

    Returns:
      Row counts, which `OUT/pseudonymize.json` holds too.

    Raises:
      InputError: unreadable logs, files other than JSON and Parquet, or `out` is taken or cannot be written.
    """
    return _edit(logs_dir, out, functools.partial(pseudonym, key=key), "pseudonymize", beam_args)


def _unless_in(users: frozenset[str], user: str) -> str | None:
    return None if user in users else user


def _edit(logs_dir: str, out: str, edit: Edit, name: str, beam_args: Sequence[str]) -> Rows:
    """Edits every file of the tables. The schema is written last: without it, `out` is no log directory."""
    pipeline = make_pipeline(beam_args)
    schema = read_schema(FileSystems.join(logs_dir, SCHEMA))
    inputs = find_tables(logs_dir)
    report, files = FileSystems.join(out, f"{name}.json"), []
    top = FileSystems.join(logs_dir, "")
    for table, paths in inputs.items():
        columns = () if table in WITHOUT_USERS else layout_of(schema, table).sources[USER]
        for path in paths:
            if columns:
                check_format(path, columns)
            files.append((table, path, FileSystems.join(out, path.removeprefix(top)), columns))
    try:
        if match_in(out, ["**"]):
            raise InputError(out, "something there already", "a new or empty directory")
        if not FileSystems.exists(out):
            FileSystems.mkdirs(out)
    except (OSError, ValueError, BeamIOError) as error:
        raise InputError(out, f"no writable directory ({error})", "one that can be written") from error
    _ = (
        pipeline
        | "Files" >> beam.Create(files)
        | "OneEach" >> beam.Reshuffle()
        | "Edit" >> beam.Map(_edit_one, edit)
        | "Counts" >> beam.CombineGlobally(_add, list(inputs))
        | "Report" >> beam.Map(write_json, report)
    )
    try:
        run(pipeline)
        rows: Rows = read_json(report)
        for table, counts in rows.items():
            if counts["read"] and counts["unreadable"] == counts["read"]:
                source = ", ".join(layout_of(schema, table).sources[USER])
                raise InputError(inputs[table][0], f"no row with a user id of {counts['read']:,}", f"a column {source}")
        with FileSystems.create(FileSystems.join(out, SCHEMA), "text/plain") as stream:
            stream.write(schema.to_yaml().encode("utf-8"))
    except BaseException:
        FileSystems.delete(match_in(out, ["**"]))
        raise
    return rows


def _edit_one(file: tuple[str, str, str, tuple[str, ...]], edit: Edit) -> tuple[str, dict[str, int]]:
    table, path, out, columns = file
    if not columns:
        copy_file(path, out)
        return table, {}
    return table, dict(edit_file(path, out, edit, columns))


def _add(parts: Sequence, tables: Sequence[str]) -> Rows:
    """Sums of counts by table, of `(table, counts)` and of such sums."""
    totals = {table: Counts() for table in tables if table not in WITHOUT_USERS}
    for part in parts:
        for table, counts in part.items() if isinstance(part, dict) else [part]:
            if table in totals:
                totals[table].update(counts)
    return {
        table: {key: counts[key] for key in ("read", "written", "removed", "unreadable")}
        for table, counts in totals.items()
    }
