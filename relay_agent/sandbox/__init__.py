"""A platform on this machine: REST, SQS, S3, CloudWatch Logs and a web page, in one process (extra `sandbox`).

This package owns the platform's side of the protocol (PROTOCOL §1, §2), for trials, demonstrations and tests. It must not be
imported by the agent, or be reachable from a network.
"""
