"""The configuration of supervisord.

The text of the configuration contains no path and no command line. supervisord expands ``%`` in every value, ends a
value at `` ;`` and `` #``, and removes white space from its ends, and there is no way to write such a value otherwise.
Therefore, the files are named relative to the data folder, in which supervisord runs, and everything else is passed in
environment variables, whose values supervisord inserts as they are.
"""

import shlex
import sys
from typing import Final

from scripts.local.installation import ROOT, Installation

SERVERS: Final = ("mongod", "redis")
_PREFIX: Final = "SHELFSIGHT_SUPERVISOR_"


def config_text(names: list[str]) -> str:
    """Return the text of the configuration file.

    Because of ``startsecs=0`` and ``autorestart``, supervisord always restarts a process, even if it has been killed
    many times. Otherwise, it would give up at some point (state FATAL). ``exec_child`` limits the rate of restarts.
    Without ``nocleanup``, supervisord would delete the logs of other supervisors on this machine. ``childlogdir`` is not
    used, but its default, the folder for temporary files, would be expanded.

    :param names: the names of the processes in the order in which they are started.
    """
    parts = [
        (
            "[supervisord]\nlogfile=logs/supervisor.log\nlogfile_maxbytes=10MB\nlogfile_backups=1\n"
            "pidfile=run/supervisor.pid\nchildlogdir=logs\nnodaemon=true\nsilent=true\nminfds=1024\nnocleanup=true\n"
        ),
        f"[unix_http_server]\nfile={_inserted('SOCKET')}\nchmod=0600\n",
        "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n",
    ]
    parts += [
        (
            f"[program:{name}]\ncommand={_inserted(name)}\ndirectory={_inserted('ROOT')}\npriority={priority}\n"
            f"autostart={'true' if name in SERVERS else 'false'}\nautorestart=true\nstartsecs=0\n"
            f"stopwaitsecs=30\nstopasgroup=false\nkillasgroup=false\nredirect_stderr=true\n"
            f"stdout_logfile=logs/{name}.log\nstdout_logfile_maxbytes=10MB\nstdout_logfile_backups=1\n"
        )
        for priority, name in enumerate(names)
    ]
    return "\n".join(parts)


def config_variables(installation: Installation, commands: dict[str, list[str]]) -> dict[str, str]:
    """Return the environment variables of supervisord that the configuration refers to.

    :param commands: the command lines of the processes by name.
    """
    variables = {f"{_PREFIX}SOCKET": str(installation.socket), f"{_PREFIX}ROOT": str(ROOT)}
    for name, command in commands.items():
        pidfile = str(installation.run / f"{name}.pid")
        arguments = [sys.executable, "-m", "scripts.local.exec_child", name, pidfile, "--", *command]
        variables[_PREFIX + name] = shlex.join(arguments)
    return variables


def _inserted(name: str) -> str:
    return f"%(ENV_{_PREFIX}{name})s"
