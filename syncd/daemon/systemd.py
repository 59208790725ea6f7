"""What systemd wants to hear of a service of `Type=notify`; silent where there is no systemd.

sd_notify(3): one datagram of lines to the socket that $NOTIFY_SOCKET names; `@` stands for the NUL of an abstract one.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress


class Systemd:
    """The way to the service manager."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._address = env.get("NOTIFY_SOCKET", "")

    def tell(self, *lines: str) -> None:
        """Such as `READY=1`, or `WATCHDOG=1`: without it for WatchdogSec, systemd restarts the service. Nobody has to listen."""
        if not self._address:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            out.sendto("\n".join(lines).encode(), address)
