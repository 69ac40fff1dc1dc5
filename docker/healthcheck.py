"""The container's health check: asks the agent for /healthz over `admin.sock`, never over TCP, where another agent may answer.

Kubernetes' readiness probe passes another page, /readyz. Exit code 0 if the answer is 200, else 1 with the reasons. It imports almost
nothing, because it runs every 30 seconds.
"""

import os
import socket
import sys

LIMIT_SECONDS = 10.0


def main() -> int:
    """Ask the agent, print its answer, and return the exit code."""
    page = sys.argv[1] if len(sys.argv) > 1 else "/healthz"
    path = os.path.join(os.environ.get("RELAY_STATE_DIR") or "/var/lib/relay-agent", "admin.sock")
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(LIMIT_SECONDS)
    try:
        connection.connect(path)
        connection.sendall(f"GET {page} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    except OSError as error:
        print(f"no agent answers at {path}: {error.strerror or error}")
        return 1
    head, _, body = answer.partition(b"\r\n\r\n")
    print(body.decode("utf-8", "replace").strip()[:1000])
    return 0 if head.split()[1:2] == [b"200"] else 1


if __name__ == "__main__":
    sys.exit(main())
