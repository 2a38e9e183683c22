"""The command line: a thin face over the services and clients."""
