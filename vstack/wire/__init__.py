"""Request and response types, one module per service.

Frozen msgspec Structs. Unknown fields are ignored, so that neighbouring releases can talk during a rolling upgrade.
Services decode requests into these types (a mismatch is a 400) and clients decode answers into them.
"""
