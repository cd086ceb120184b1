"""Ask a port of this container whether its process lives: ``healthcheck.py [PATH [PORT]]``; exit code 0 for a 200.

The path is ``/healthz`` unless given, the port ``PENSTOCK_METRICS_PORT``. It loads nothing but sockets: it runs every
few seconds beside the service, and most of its cost is Python's start.
"""

import os
import socket
import sys

_WITHIN = 4.0  # seconds; less than the health check's own timeout, so that its words are seen


def main() -> None:
    """Say the status line and exit."""
    path = sys.argv[1] if len(sys.argv) > 1 else "/healthz"
    port = int(sys.argv[2] if len(sys.argv) > 2 else os.environ.get("PENSTOCK_METRICS_PORT", "9464"))
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_WITHIN) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            status = connection.makefile("rb").readline().decode("latin-1").strip()
    except OSError as error:
        sys.exit(f"port {port}: {error}")
    sys.stdout.write(f"{status}\n")
    sys.exit(0 if status.split()[1:2] == ["200"] else 1)


main()
