"""slurmdbd and its MariaDB in the private cluster: Debian's, with everything below /run of the sandbox.

Needs slurmdbd, slurm-wlm-mysql-plugin and mariadb-server (28 MB): what_is_missing says so.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.cluster.plan import USERS

_DIRECTORY = "/run/sandbox/db"
_SOCKET = "/run/mysqld/mysqld.sock"
_PROGRAMS = ("slurmdbd", "mariadbd", "mariadb-install-db", "mariadb")
_START_SECONDS = 30.0
_CONF = """AuthType=auth/munge
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
LogFile=/var/log/slurm/slurmdbd.log
PidFile=/run/slurmdbd.pid
"""


def what_is_missing() -> str:
    """Why there can be no accounting here; empty when there can."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    lacking = [program for program in _PROGRAMS if not shutil.which(program, path=path)]
    hint = "apt-get install slurmdbd slurm-wlm-mysql-plugin mariadb-server"
    return f"{lacking[0]} is not installed ({hint})" if lacking else ""


def accounting_lines(port: int) -> tuple[str, ...]:
    """Of slurm.conf."""
    return (
        "AccountingStorageType=accounting_storage/slurmdbd",
        "AccountingStorageHost=127.0.0.1",
        f"AccountingStoragePort={port}",
        "AccountingStorageEnforce=associations",
    )


def start(port: int, run: Callable[..., str], write: Callable[[str, str, int], None]) -> None:
    """Before slurmctld, which ends when it finds no slurmdbd."""
    for directory in (_DIRECTORY, os.path.dirname(_SOCKET)):
        Path(directory).mkdir(parents=True, exist_ok=True)
    run("mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={_DIRECTORY}/data", "--skip-test-db")
    log = os.open("/var/log/slurm/mariadb.log", os.O_WRONLY | os.O_CREAT, 0o644)
    subprocess.Popen(
        ["mariadbd", "--no-defaults", "--user=root", f"--datadir={_DIRECTORY}/data", f"--socket={_SOCKET}",
         "--skip-networking", f"--pid-file={_DIRECTORY}/pid"],
        stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip
    os.close(log)
    _until(lambda: run("mariadb", "--no-defaults", "-S", _SOCKET, "-e", "create database if not exists slurm_acct_db"))
    write("/etc/slurm/slurmdbd.conf", _CONF.format(port=port), 0o600)
    run("slurmdbd", env=os.environ | {"MYSQL_UNIX_PORT": _SOCKET})
    _until(lambda: socket.create_connection(("127.0.0.1", port), 1).close())
    for what in (("cluster", "sandbox"), ("account", "staff"), ("user", f"{','.join(USERS)},root", "account=staff")):
        run("sacctmgr", "-i", "add", *what)


def _until(what: Callable[[], object]) -> None:
    """Until it does not fail any more."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            what()
            return
        except (RuntimeError, OSError):
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)
