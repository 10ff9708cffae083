"""The command line of ``scripts/upload``."""

import argparse
import hashlib
from pathlib import Path
from typing import Final

from scripts.client.credentials import FILE_OPTION, OPTION, VARIABLE
from scripts.client.files import DEFAULTS

MAX_SETTLE_S: Final = 86_400
WAIT_S: Final = 300.0
WAIT_PER_IMAGE_S: Final = 2.0
"""The longest wait for results by default: ``WAIT_S``, and ``WAIT_PER_IMAGE_S`` more for each image."""


def parse_arguments(description: str) -> argparse.Namespace:
    """Return the options and arguments of the command line. If it is invalid, print why, and exit with code 2."""
    parser = argparse.ArgumentParser(prog="scripts/upload", description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", type=Path, metavar="PATH", help="images, folders, or .csv manifests")
    parser.add_argument("--url", default="http://127.0.0.1:5000", help="address of the service (default: %(default)s)")
    api_key = parser.add_mutually_exclusive_group()
    api_key.add_argument(OPTION, metavar="KEY", help="API key, if the service requires one; other users of this machine can see it in the list of processes")
    api_key.add_argument(FILE_OPTION, type=Path, metavar="FILE", help=f"file whose first line is the API key (default: the environment variable {VARIABLE}, if it is set)")
    parser.add_argument("--store", help=f"store_name of the images for which no manifest sets one (default: {DEFAULTS['store_name']})")
    parser.add_argument("--camera", help=f"camera_id of the images for which no manifest sets one (default: {DEFAULTS['camera_id']})")
    parser.add_argument(
        "--timestamp", help="RFC 3339 time or Unix seconds of the images for which no manifest sets one (default: the file's modification time)"
    )
    parser.add_argument("--batch-size", type=_positive, default=32, metavar="N", help="maximum number of images in a batch (default: %(default)s)")
    parser.add_argument("--batch-bytes", type=_positive, default=16 * 1024 * 1024, metavar="N", help="maximum size of a batch in bytes (default: 16 MiB)")
    parser.add_argument("--parallel", type=_positive, default=2, metavar="N", help="number of batches that are sent at the same time (default: %(default)s)")
    parser.add_argument("--retry-for", type=float, default=300.0, metavar="S", help="for how many seconds to retry a batch that is not accepted (default: %(default)s; with --watch: at most 20, and then again later)")
    parser.add_argument("--watch", type=Path, metavar="FOLDER", help="watch a folder, and upload the images that appear in it, until Ctrl-C; no PATH can be named")
    parser.add_argument("--delete", action="store_true", help="with --watch: remove each file whose image is done, if it is still the file that was uploaded")
    parser.add_argument("--settle", type=_seconds, default=5.0, metavar="S", help="with --watch: for how many seconds a file must stay as it is (default: %(default)s)")
    resume = parser.add_mutually_exclusive_group()
    resume.add_argument(
        "--resume",
        type=Path,
        metavar="FILE",
        help=(
            "resume file, which records the images that were sent and the responses; it is removed when everything is done "
            "(default: a file in the current folder, whose name is derived from the PATHs, --url, --store, --camera and --timestamp); with --watch, the file that records what was uploaded"
        ),
    )
    resume.add_argument("--no-resume", action="store_true", help="do not use a resume file; a later run then uploads everything again")
    parser.add_argument("--wait", action="store_true", help="wait for the results and print a summary of them")
    parser.add_argument(
        "--wait-for",
        type=float,
        metavar="S",
        help=f"longest wait for the results in seconds; implies --wait (default: {WAIT_S:.0f}, plus {WAIT_PER_IMAGE_S:.0f} for each image)",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="after the upload, compare the receipts of the batches with the local files, also for what earlier runs have uploaded; implies --wait",
    )
    parser.add_argument("--keep-resume", action="store_true", help="keep the resume file when everything is done, so that a later run can --verify it")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object on standard output")
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")
    arguments = parser.parse_intermixed_args()
    if arguments.no_resume and (arguments.verify or arguments.keep_resume):
        parser.error("--verify and --keep-resume need the resume file, so --no-resume cannot be used.")
    if arguments.watch is None and not arguments.sources:
        parser.error("the following arguments are required: PATH, or --watch FOLDER")
    if arguments.watch is None and arguments.delete:
        parser.error("--delete needs --watch.")
    if arguments.watch is not None and (arguments.sources or arguments.no_resume or arguments.wait or arguments.wait_for or arguments.verify or arguments.keep_resume):
        parser.error("--watch cannot be used with PATH, --wait, --wait-for, --verify, --no-resume or --keep-resume.")
    arguments.wait = arguments.wait or arguments.wait_for is not None or arguments.verify
    arguments.resume = None if arguments.no_resume else arguments.resume or _default_resume_file(arguments)
    return arguments


def _default_resume_file(arguments: argparse.Namespace) -> Path:
    """Derive the name of the resume file from the sources, the service and the metadata options.

    Uploads that differ in one of these have different files. The name does not depend on the size of the batches, so an
    upload can be resumed with another size.
    """
    sources = arguments.sources if arguments.watch is None else [arguments.watch]
    paths = sorted(str(source.absolute()) for source in sources)
    store = DEFAULTS["store_name"] if arguments.store is None else arguments.store
    camera = DEFAULTS["camera_id"] if arguments.camera is None else arguments.camera
    parts = (paths, arguments.url.rstrip("/"), store, camera, arguments.timestamp)
    ending = "upload.jsonl" if arguments.watch is None else "watch.sqlite3"
    return Path(f"shelfsight-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}.{ending}")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= MAX_SETTLE_S:
        raise argparse.ArgumentTypeError(f"must be 0 to {MAX_SETTLE_S}")
    return value
