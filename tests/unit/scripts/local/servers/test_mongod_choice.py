"""Which mongod opens a data folder. The programs on PATH are scripts that print a version."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.local.servers import mongod_choice, mongod_download
from scripts.local.servers.errors import Unusable
from scripts.local.servers.programs import Program

Install = Callable[[str], None]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "mongodb"
    folder.mkdir()
    return folder


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function that puts a mongod of a version on PATH. Nothing else is on PATH, and nothing was downloaded."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "programs"))
    monkeypatch.setenv("MONGOD_DOWNLOAD", "off")
    monkeypatch.setattr("platform.release", lambda: "6.18.0")
    monkeypatch.setattr("ctypes.util.find_library", lambda name: name)  # it runs programs on PATH

    def put(version: str) -> None:
        program = tmp_path / "bin/mongod"
        program.write_text(f"#!/bin/sh\necho 'db version v{version}'\n")
        program.chmod(0o755)

    return put


def write(data: Path, version: str | None) -> None:
    """Make a folder in which a MongoDB has written."""
    (data / "WiredTiger").touch()
    if version is not None:
        mongod_choice.record_version(data, Program(Path("mongod"), "MongoDB", version))


def choose(data: Path, *, download: bool = False) -> tuple[str, list[str]]:
    said: list[str] = []
    show = (lambda _received, _total: None) if download else None
    return mongod_choice.choose(data, said.append, show).version, said


@pytest.mark.parametrize("version", ["7.0.43", "8.0.32"])
def test_a_new_folder_gets_the_mongod_on_path(data: Path, install: Install, version: str) -> None:
    install(version)
    assert choose(data) == (version, [])


@pytest.mark.parametrize("version", ["6.0.27", "8.2.6", "9.0.1", "4.4.29"])
def test_a_new_folder_gets_no_series_that_is_old_ends_soon_or_is_untested(data: Path, install: Install, version: str) -> None:
    install(version)
    chosen, said = choose(data)
    assert chosen == "6.0.5"
    assert f"mongod is {version} and is passed over, because a new data folder needs 8.0 or 7.0." in said[0]
    assert "6.0.5 of a Python package is used, which receives no security fixes, and the new data folder keeps it" in said[-1]


def test_without_another_mongod_a_new_folder_gets_that_of_the_package(data: Path, install: Install) -> None:
    chosen, said = choose(data, download=True)
    assert (chosen, len(said)) == ("6.0.5", 2)
    assert "MONGOD_DOWNLOAD is off" in said[0]


@pytest.mark.parametrize(("wrote", "on_path"), [("7.0.2", "7.0.43"), ("8.0.32", "8.0.4"), ("6.0.5", "6.0.27"), (None, "6.0.27"), ("8.2.1", "8.2.6")])
def test_a_folder_is_opened_by_the_series_that_wrote_it(data: Path, install: Install, wrote: str | None, on_path: str) -> None:
    write(data, wrote)
    install(on_path)
    assert choose(data) == (on_path, [])


@pytest.mark.parametrize(("wrote", "on_path"), [("6.0.5", "7.0.43"), ("6.0.5", "8.0.32"), (None, "8.0.32")])
def test_a_folder_of_6_is_not_opened_by_a_newer_mongod(data: Path, install: Install, wrote: str | None, on_path: str) -> None:
    write(data, wrote)
    install(on_path)
    chosen, said = choose(data, download=True)
    assert (chosen, len(said)) == ("6.0.5", 1)
    assert f"is {on_path} and is passed over, because {data} was written by 6.0, and is never opened by another series (from 6.0 to 8.0, 7.0 is needed between)." in said[0]


@pytest.mark.parametrize(("wrote", "on_path"), [("8.0.32", "7.0.43"), ("7.0.43", "8.0.32"), ("8.2.6", "8.0.32"), ("8.0.32", None)])
def test_without_the_series_that_wrote_it_a_folder_is_refused_with_a_remedy(data: Path, install: Install, wrote: str, on_path: str | None) -> None:
    write(data, wrote)
    if on_path:
        install(on_path)
    series = wrote.rpartition(".")[0]
    with pytest.raises(Unusable) as refused:
        choose(data, download=True)
    assert str(refused.value).startswith(f"{data} was written by MongoDB {series}. ")
    assert f"Install MongoDB {series}, so that mongod is on PATH, or set MONGODB_URL to a MongoDB server." in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_record_without_data_does_not_count(data: Path, install: Install) -> None:
    write(data, "8.0.32")
    (data / "WiredTiger").unlink()  # the first start failed before anything was written
    assert choose(data)[0] == "6.0.5"


def test_a_damaged_record_is_an_error_with_a_remedy(data: Path) -> None:
    write(data, "8.0.32")
    record = data / "shelfsight-written-by.json"
    assert json.loads(record.read_text()) == {"version": "8.0.32"}
    for text in ("", "[]", "{}"):
        record.write_text(text)
        with pytest.raises(Unusable, match="is damaged; write the version of MongoDB into it"):
            mongod_choice.written_by(data)


@pytest.mark.parametrize(("release", "runs"), [("6.18.44-x", True), ("6.19.0", False), ("7.0.0-generic", False), ("7.0.13", False), ("7.0.14", True), ("7.1", True), ("6.19", False), ("5.10.0", True)])
def test_mongodb_8_is_not_used_on_a_linux_on_which_it_ends(data: Path, install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str, *, runs: bool) -> None:
    monkeypatch.setattr(mongod_download, "archive_of", lambda _series: mongod_download.Archive("8.0.32", "test", ""))
    downloaded = tmp_path / "programs/shelfsight/mongod-linux-test-8.0.32"
    downloaded.parent.mkdir(parents=True)
    downloaded.write_text("#!/bin/sh\necho 'db version v8.0.32'\n")
    downloaded.chmod(0o755)
    monkeypatch.setattr("platform.release", lambda: release)
    for expected_sentences in (1, 2):
        chosen, said = choose(data)
        assert chosen == ("8.0.32" if runs else "6.0.5")
        assert len([sentence for sentence in said if "does not run on Linux" in sentence]) == (0 if runs else expected_sentences)
        install("8.0.32")  # the one on PATH, too


def test_a_new_folder_gets_the_makers_7_where_their_8_does_not_run(data: Path, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("platform.release", lambda: "7.0.1")
    downloaded: list[str] = []

    def download(archive: mongod_download.Archive, *_: object, **_options: object) -> Path:
        downloaded.append(archive.version)
        raise Unusable("the site does not respond")

    monkeypatch.setattr(mongod_download, "download", download)
    assert choose(data, download=True)[0] == "6.0.5"
    assert [version.rpartition(".")[0] for version in downloaded] == ["7.0"]


def test_a_home_folder_of_another_user_is_no_obstacle(data: Path, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_file", lambda _self: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    assert mongod_download.find_downloaded(mongod_download.Archive("8.0.32", "test", ""), data) is None


def test_a_mongod_that_does_not_run_is_passed_over_with_the_reason(data: Path, install: Install, tmp_path: Path) -> None:
    program = tmp_path / "bin/mongod"
    program.write_text("#!/bin/sh\necho 'mongod: error while loading shared libraries: libcurl.so.4: cannot open' >&2\nexit 127\n")
    program.chmod(0o755)
    chosen, said = choose(data)
    assert chosen == "6.0.5"
    assert "needs libcurl.so.4; install the package that contains it" in said[0]


def test_every_known_archive_has_a_digest_and_a_version_of_its_series() -> None:
    assert {("8.0", "x86_64"), ("7.0", "x86_64")} <= mongod_download._ARCHIVES.keys()
    for (series, machine), archive in mongod_download._ARCHIVES.items():
        assert archive.version.startswith(f"{series}.")
        assert archive.target.startswith(f"{machine}-")
        assert len(bytes.fromhex(archive.sha256)) == 32
