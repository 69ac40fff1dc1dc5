"""Calling a target: policy, redirects, cookies, and the response."""
