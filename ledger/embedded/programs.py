"""Run the programs of PostgreSQL (initdb, pg_ctl, psql) as another user; kill them if interrupted."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from ledger.embedded.account import Account

RUN_SECONDS_MAX = 150
"""Timeout of a program: longer than it is asked to wait for a server to start or to stop."""


def run_program(
    command: Sequence[str], stdin: str, environment: Mapping[str, str], account: Account | None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end. If this is interrupted, the program and the processes that it started are killed.

    Args:
        command: the program and its arguments.
        stdin: the text of its standard input.
        environment: variables in addition to PATH and LC_ALL. Those of this process may contain secrets.
        account: the user to run it as; None: the user of this process.

    Returns:
        its exit code, stdout and stderr.
    """
    user: dict[str, Any] = {"user": account.uid, "group": account.gid, "extra_groups": []} if account else {}
    with subprocess.Popen(  # noqa: S603
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={"PATH": os.defpath, "LC_ALL": "C", **environment},
        cwd="/",
        # Ctrl-C reaches only this process.
        start_new_session=True,
        **user,
    ) as process:
        try:
            out, error = process.communicate(stdin, RUN_SECONDS_MAX)
        except BaseException:
            # Processes that initdb has started would outlive it.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, error)


@contextmanager
def interruptions_deferred() -> Iterator[None]:
    """Defer SIGINT and SIGTERM until the context exits. In other threads than the main thread, do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if received:
            signal.raise_signal(received[0])
