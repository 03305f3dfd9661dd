"""Listing of files on any file system of Beam."""

import re

from apache_beam.io.filesystems import FileSystems


def match_in(directory: str, patterns: list[str]) -> list[str]:
    """Matching files in a directory, whose own name may contain pattern characters."""
    literal = re.sub(r"[*?\[]", "?", directory)
    matches = FileSystems.match([FileSystems.join(literal, pattern) for pattern in patterns])
    paths = [file.path for match in matches for file in match.metadata_list]
    return [path for path in paths if path.startswith(FileSystems.join(directory, ""))]
