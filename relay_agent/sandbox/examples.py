"""What `relay-agent sandbox --help` says. It imports nothing, because the help must work without the extra `sandbox` too."""

from __future__ import annotations

DESCRIPTION = """Run a platform on this machine, to try the agent.

It has REST, SQS, S3, CloudWatch Logs and a web page. Prints the address of the page and the environment that an agent needs, as
KEY=value lines. All data is in memory and lost when it ends, on Ctrl-C. It listens on 127.0.0.1 only.
"""

EXAMPLE = """\b
Example, in two terminals:
  relay-agent sandbox --env-file sandbox.env
  set -a; . ./sandbox.env; relay-agent run

\b
Faults, while it runs (GET /sandbox/faults lists them with their hits, DELETE ends
them, POST /sandbox/credentials/expire expires every AWS credential). A rate limit
for the next 3 heartbeats:
  curl http://127.0.0.1:8088/sandbox/faults -H 'Content-Type: application/json' \\
    -d '{"service": "rest", "operation": "agent/status", "count": 3,
         "status": 429, "headers": {"Retry-After": "5"}}'
Fields: service (rest, sqs, s3, logs), operation, contains, count (null: until
ended), skip, hang_seconds (or "forever"), close, status, body, headers, code,
message.
"""
