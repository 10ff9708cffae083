"""Read manifests: CSV files that list images with their metadata.

People write them with spreadsheets. Therefore, a manifest may be separated by semicolons or tabs, may have white space
around its values, and may end with empty rows. A column that may be a misspelled one is refused, because an image that
is filed under the wrong store is worse than an error. Other unknown columns are sent too; the service keeps them.
"""

import csv
import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

from scripts.client.groups import Image, UsageError, make_image, parse_timestamp

COLUMNS: Final = ("path", "timestamp", "store_name", "camera_id", "barcode", "filename")
_OPTIONS: Final = {"timestamp": "--timestamp", "store_name": "--store", "camera_id": "--camera"}
"""The columns whose values matter even if there is no such column, and the options that set them instead."""
_SIMILAR: Final = {
    "timestamp": frozenset(
        {"date", "time", "datetime", "datetaken", "taken", "takenat", "captured", "capturedat", "created", "createdat"}
    ),
    "store_name": frozenset(),
    "camera_id": frozenset({"cam", "camno", "kamera", "device", "deviceid"}),
}
"""Names that probably mean one of these columns, in the form of ``_letters``. So do similar names, and names that begin
like the column."""
_BEGINNINGS: Final = {"timestamp": "timestamp", "store_name": "store", "camera_id": "camera"}
_MIN_SIMILARITY: Final = 0.75
_ALIASES: Final = {"store": "store_name", "shop": "store_name", "shopname": "store_name", "camera": "camera_id"}
_DELIMITERS: Final = ",;\t|"
_DELIMITER_LINE: Final = re.compile(r"sep=(.)\s*", re.IGNORECASE)
"""A first line with which spreadsheets name the delimiter."""
_MAX_LINE: Final = 64 * 1024


def read_manifest(source: Path, defaults: dict[str, Any], given: dict[str, Any]) -> Iterator[Image]:
    """Yield the images that a manifest lists, in its order.

    :param defaults: metadata of the images for which neither the manifest nor the user sets another value.
    :param given: metadata that the user set with options; the manifest takes precedence.
    :raises UsageError: when the manifest is invalid, or an image does not exist.
    :raises OSError: when it cannot be read.
    """
    if not source.is_file():
        raise UsageError(f"{source} does not exist, or is not a file.")
    with source.open(newline="", encoding="utf-8-sig") as file:
        delimiter, skipped = _find_delimiter(file)
        rows = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
        columns: list[str] = []
        try:
            for row in rows:
                if not any(cell.strip() for cell in row):
                    continue  # spreadsheets append rows of nothing but delimiters
                if not columns:
                    columns = _parse_header(source, row, given)
                    continue
                try:
                    yield _parse_row(source.parent, columns, row, defaults, given)
                except (UsageError, OSError) as error:
                    reason = error if isinstance(error, UsageError) else f"{error.filename}: {error.strerror}"
                    hint = (
                        ""
                        if delimiter == ","
                        else f" The columns are separated by {delimiter!r}, as in the first line."
                    )
                    raise UsageError(f"{source}, line {rows.line_num + skipped}: {reason}{hint}") from None
        except UnicodeDecodeError as error:
            byte = f"byte {error.object[error.start]:#04x}"
            raise UsageError(f"{source} is not UTF-8 ({byte} after line {rows.line_num}); save it as UTF-8.") from None
        except csv.Error as error:
            raise UsageError(f"{source}, line {rows.line_num + skipped}: invalid CSV: {error}.") from None
        if not columns:
            raise UsageError(_no_path(source))


def _find_delimiter(file: IO[str]) -> tuple[str, int]:
    """Find out what separates the columns, and go to the first line that contains columns.

    :returns: the delimiter, and the number of lines before the current position.
    """
    try:
        line = file.readline(_MAX_LINE)
        named = _DELIMITER_LINE.fullmatch(line)
        if named is not None:
            return named[1], 1
        while line and not line.strip():
            line = file.readline(_MAX_LINE)
    except UnicodeDecodeError:
        line = ""  # the caller reports the error with its position
    file.seek(0)
    for delimiter in _DELIMITERS:
        if "path" in map(_letters, next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])):
            return delimiter, 0
    return ",", 0


def _parse_header(source: Path, row: list[str], given: dict[str, Any]) -> list[str]:
    """Return the names of the columns. Columns without a name are empty."""
    known = {_letters(name): name for name in COLUMNS} | _ALIASES
    names = [cell.strip() for cell in row]
    columns = [known.get(_letters(name), name) for name in names]
    if "path" not in columns:
        raise UsageError(_no_path(source))
    for number, column in enumerate(columns):
        if column and column in columns[:number]:
            raise UsageError(f"{source} has more than one column {column} ({', '.join(names)}); remove or rename one.")
        if column == "file":
            raise UsageError(
                f"{source} has a column file, which the service would take for the content of the image; rename it."
            )
    unknown = [name for name in columns if name and name not in COLUMNS]
    for missing in [name for name in _OPTIONS if name not in columns and name not in given]:
        for name in unknown:
            if _is_similar(name, missing):
                raise UsageError(
                    f"{source} has a column {name}, which may mean {missing}. Rename the column to {missing}, or set {_OPTIONS[missing]}."
                )
    if unknown and "store_name" not in columns and "store_name" not in given:
        raise UsageError(
            f"{source} has no column store_name, but these unknown columns: {', '.join(unknown)}. Rename the column with the store to store_name, "
            "or set --store."
        )
    return columns


def _parse_row(
    folder: Path, columns: list[str], row: list[str], defaults: dict[str, Any], given: dict[str, Any]
) -> Image:
    if any(cell.strip() for cell in row[len(columns) :]):
        raise UsageError("the row has more fields than there are columns.")
    cells = [(name, cell) for name, cell in zip(columns, row, strict=False) if cell.strip()]
    values = {name: cell.strip() for name, cell in cells}
    if "" in values:
        raise UsageError(f"the value {values['']!r} is in a column without a name; name the column in the first line.")
    if values.pop("path", None) is None:
        raise UsageError("the column path is empty.")
    if "store_name" in columns and "store_name" not in values and "store_name" not in given:
        raise UsageError("the column store_name is empty; fill it in, or set --store for the rows without a store.")
    timestamp = {"timestamp": parse_timestamp(values["timestamp"])} if "timestamp" in values else {}
    return make_image(_find_file(folder, dict(cells)["path"]), defaults | given | values | timestamp)


def _find_file(folder: Path, text: str) -> Path:
    """Return the path of a file: as it is written, without white space around it, or with the backslashes of Windows replaced."""
    for name in (text, text.strip(), text.strip().replace("\\", "/")):
        path = folder / name
        if path.is_file():
            return path
    raise UsageError(f"{folder / text.strip()} does not exist, or is not a file.")


def _is_similar(name: str, column: str) -> bool:
    letters, wanted = _letters(name), _letters(column)
    if letters in _SIMILAR[column] or letters.startswith(_BEGINNINGS[column]):
        return True
    return difflib.SequenceMatcher(None, letters, wanted).ratio() >= _MIN_SIMILARITY


def _letters(name: str) -> str:
    """Return the letters and digits of a name in lower case: ``store_name``, ``Store Name`` and ``storeName`` are the same."""
    return "".join(character for character in name.casefold() if character.isalnum())


def _no_path(source: Path) -> str:
    return f"{source} has no column named path. Valid column names: {', '.join(COLUMNS)}; other columns are kept with the image."
