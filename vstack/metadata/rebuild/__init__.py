"""The database made again from the storage nodes."""
