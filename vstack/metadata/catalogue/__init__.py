"""The rows: videos, chunks and what they place, storage nodes, generations; manifests and figures over them."""
