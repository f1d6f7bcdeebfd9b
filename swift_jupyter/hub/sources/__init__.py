"""The places from which a repository can be pulled."""
