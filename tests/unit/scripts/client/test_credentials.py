"""``scripts/upload`` takes its API key from an option, a file or the environment; a refused key loses nothing."""

import re
from collections import Counter
from pathlib import Path

import pytest

from scripts.client.credentials import find_api_key, without_key
from scripts.client.groups import UsageError
from tests.unit.scripts.client.command_line import resume_files, upload
from tests.unit.scripts.client.scripted_service import Reply, ScriptedService

pytestmark = pytest.mark.slow
KEY = "sfs_right_0123456789"
WRONG = "sfs_wrong_9876543210"


@pytest.fixture(autouse=True)
def _no_key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHELFSIGHT_API_KEY", raising=False)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "camera.key"
    path.write_text(f"\ufeff {KEY}\r\nA second line\n")
    path.chmod(0o600)
    return path


def test_an_option_has_priority_over_the_environment(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_api_key(None, None, pytest.fail) is None
    monkeypatch.setenv("SHELFSIGHT_API_KEY", " \n")
    assert find_api_key(None, None, pytest.fail) is None
    monkeypatch.setenv("SHELFSIGHT_API_KEY", WRONG)
    assert find_api_key(None, None, pytest.fail) == WRONG
    assert find_api_key(None, key_file, pytest.fail) == KEY
    assert find_api_key(KEY, None, pytest.fail) == KEY


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_key_file_that_others_can_read_causes_a_warning(key_file: Path, mode: int) -> None:
    warnings: list[str] = []
    key_file.chmod(mode)
    assert find_api_key(None, key_file, warnings.append) == KEY
    assert [(KEY in warning, f"chmod 600 {key_file}" in warning) for warning in warnings] == [(False, True)]


@pytest.mark.parametrize("text", ["", "\n", "  \n" + KEY, "sfs_\xe9", f"{KEY}\0", f"{KEY}\x1b[2J", "\udcff"])
def test_a_key_that_no_header_can_contain_is_a_usage_error_that_does_not_repeat_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key"
    path.write_text(text, errors="surrogateescape")
    path.chmod(0o600)
    for option, file in ((text.partition("\n")[0], None), (None, path)):
        with pytest.raises(UsageError, match=r"^[^_]*--api-key[^_]*$"):
            find_api_key(option, file, pytest.fail)


def test_a_key_in_place_of_its_file_is_not_repeated() -> None:
    with pytest.raises(UsageError) as error:
        find_api_key(None, Path(KEY), pytest.fail)
    assert str(error.value) == "The file in --api-key-file cannot be read: No such file or directory"


def test_the_command_line_without_its_key_keeps_everything_else() -> None:
    assert without_key(["a", "--api-key", "--api-key", "b", "--api-key-file", "c", "--api-key=x=y"]) == ["a", "b", "--api-key-file", "c"]


def test_two_sources_of_the_key_are_a_usage_error(service: ScriptedService, folder: Path, key_file: Path) -> None:
    code, _, stderr = upload(service, folder, "--api-key", KEY, "--api-key-file", str(key_file))
    assert (code, "not allowed with argument" in stderr, KEY in stderr) == (2, True, False)


def test_a_missing_key_is_explained_at_once_and_the_upload_can_be_resumed(service: ScriptedService, folder: Path, key_file: Path) -> None:
    service.api_key = KEY
    code, _, stderr = upload(service, folder, "--parallel", "1")
    assert (code, len(service.requests)) == (3, 1)
    assert "The service requires an API key; set SHELFSIGHT_API_KEY, --api-key-file or --api-key (HTTP 401 unauthorized: " in stderr
    assert "To resume: " in stderr
    key_file.chmod(0o644)
    code, _, stderr = upload(service, folder, "--api-key-file", str(key_file), "--parallel", "1")
    assert (code, stderr.startswith("Warning: Other users of this machine can read the API key")) == (0, True)
    assert Counter(service.stored) == Counter(f"{number}.jpg" for number in range(6))
    assert service.requests[1].key == service.requests[0].key


def test_a_key_that_is_revoked_during_an_upload_loses_nothing(service: ScriptedService, folder: Path) -> None:
    service.api_key = KEY
    service.script = [None, None, Reply(401, "unauthorized")]
    code, summary, stderr = upload(service, folder, "--parallel", "1", "--api-key", KEY)
    assert (code, summary["accepted"]) == (3, 4)
    assert "The service refuses this API key; use another one (HTTP 401 unauthorized: Scripted by the test.)" in stderr
    recorded = resume_files(folder)[0].read_text()
    service.api_key = "sfs_new_1"
    code, _, stderr = upload(service, folder, "--api-key", KEY)  # a public operation refuses an invalid key, too
    assert (code, "The service refuses this API key" in stderr) == (3, True)
    assert resume_files(folder)[0].read_text() == recorded
    code, summary, _ = upload(service, folder, "--api-key", "sfs_new_1")
    assert (code, summary["accepted"], summary["skipped"]) == (0, 6, 4)
    assert Counter(service.stored) == Counter(f"{number}.jpg" for number in range(6))


def test_the_key_is_in_no_output_and_no_resume_file(service: ScriptedService, folder: Path) -> None:
    service.api_key = KEY
    service.script = [None, Reply(403, "forbidden")]
    _, summary, stderr = upload(service, folder, "--parallel", "1", "--api-key", KEY, "--store", "Main Street")
    assert KEY not in f"{summary}{stderr}{resume_files(folder)[0].read_text()}"
    command = re.search(r"To resume, set SHELFSIGHT_API_KEY and run: (scripts/upload .*)\n", stderr)
    assert command is not None
    assert command[1].endswith("--parallel 1 --store 'Main Street'")


def test_with_a_key_that_may_only_upload_the_wait_ends_with_a_sentence_and_can_be_resumed(service: ScriptedService, folder: Path) -> None:
    service.api_key, service.scopes = KEY, {"images:upload"}
    code, summary, stderr = upload(service, folder, "--api-key", KEY, "--wait")
    assert (code, summary["accepted"], summary["waiting"], summary["gave_up"]) == (5, 6, 6, None)
    assert "Waiting for the results failed: The API key lacks the scope images:read; use a key that has it. To resume" in stderr
    service.scopes = {"images:upload", "images:read"}
    code, summary, _ = upload(service, folder, "--api-key", KEY, "--wait")
    assert (code, summary["done"], len(service.requests)) == (0, 6, 3)


def test_images_of_a_store_that_the_key_does_not_include_are_rejected_one_by_one(service: ScriptedService, folder: Path) -> None:
    service.api_key, service.stores = KEY, {"North"}
    manifest = folder.parent / "manifest.csv"
    manifest.write_text("path,store_name\nimages/0.jpg,North\nimages/1.jpg,South\nimages/2.jpg,South\n")
    code, summary, stderr = upload(service, manifest, "--api-key", KEY)
    assert (code, summary["accepted"]) == (1, 1)
    assert {(Path(image["path"]).name, image["code"]) for image in summary["rejected"]} == {("1.jpg", "foreign_store"), ("2.jpg", "foreign_store")}
    assert "1.jpg: foreign_store: Another store." in stderr
