"""Errors of other ranks."""

__all__ = ["RemoteError"]


class RemoteError(RuntimeError):
    """Another rank failed, with an error that cannot be raised here."""
