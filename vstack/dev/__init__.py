"""A real local cluster of separate processes for one machine: Postgres, metadata, storage, uploader, client."""
