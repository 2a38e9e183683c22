"""The only callers of V-Stack's HTTP interfaces: typed clients over one transport with retries in one place."""
