"""Decodes and encodes the JSON and JWE of commands and answers. No network and no files."""
