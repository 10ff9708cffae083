"""supervisord's configuration, read by supervisord's own parser: it contains every path and command as it is."""

import os
import shlex
import socket
from pathlib import Path
from typing import Any

import pytest
from supervisor.options import ServerOptions

from scripts.local.installation import ROOT, Installation
from scripts.local.supervisor_config import config_text, config_variables

NAMES = [
    "plain",
    "feature%2Fshelf",
    "100%",
    "%(here)s %(ENV_HOME)s %(nothing)s %s %%",
    "ours ;theirs",
    "ours #theirs",
    "; comment",
    "# comment",
    "Läden & Co 'x' \"y\" 😀",
    "$HOME `id` $(id)",
    "back\\slash\\",
    " white  space\t ",
    "[section]",
    "a=b,c:d",
    "-leading",
    "~",
    "x" * 200,
]


def parse(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let supervisord parse the configuration of an installation, in its working directory and environment."""
    commands = {
        "mongod": ["/opt/a %b/mongod", "--dbpath", str(installation.data / "mongodb")],
        "web": ["python", "-c", str(installation.data / "conf ;.py"), "web.app:create_app()", ""],
    }
    for name, value in config_variables(installation, commands).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(installation.data)
    config = installation.run / "supervisord.conf"
    config.write_text(config_text(list(commands)))
    options = ServerOptions()
    options.realize(["-c", str(config)], doc="")
    for group in options.process_group_configs:
        (process,) = group.process_configs
        arguments = shlex.split(process.command)
        assert arguments[arguments.index("--") + 1 :] == commands[process.name]
        assert arguments[3:5] == [process.name, str(installation.run / f"{process.name}.pid")]
        assert process.directory == str(ROOT)
        assert os.path.realpath(process.stdout_logfile) == str(installation.logs / f"{process.name}.log")
    return options


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    installation = Installation(tmp_path.resolve() / name, 5000, 1)
    installation.prepare()
    options = parse(installation, monkeypatch)
    assert len(options.process_group_configs) == 2
    assert options.pidfile == str(installation.run / "supervisor.pid")
    assert options.logfile == str(installation.logs / "supervisor.log")
    assert [server["file"] for server in options.server_configs] == [str(installation.socket)]
    assert options.nocleanup  # it deletes no logs of other supervisors


@pytest.mark.parametrize("name", ["%d ;x", "y" * 200])
def test_the_folder_for_temporary_files_may_have_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / name))
    installation = Installation(tmp_path.resolve() / "data", 5000, 1)
    installation.prepare()
    (server,) = parse(installation, monkeypatch).server_configs
    assert server["file"] == str(installation.socket)
    with socket.socket(socket.AF_UNIX) as sock:  # supervisord first binds to a path with its pid
        path = Path(f"{server['file']}.4194304")
        sock.bind(str(path))
        path.unlink()


def test_the_text_does_not_depend_on_any_path() -> None:
    assert "/" not in config_text(["mongod", "worker-1"]).replace("logs/", "").replace("run/", "")
