"""The platform, as the agent sees it: REST, credentials, queues, payloads, and the client that joins them."""
