"""A real local cluster: every service as its own process, on loopback, under one supervisor and one directory."""
