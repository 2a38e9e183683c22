"""V-Stack: a distributed video store for your own machines."""

__version__ = "1.0.0"
