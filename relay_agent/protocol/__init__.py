"""The platform's JSON and JWE, to and from models. No network and no files."""
