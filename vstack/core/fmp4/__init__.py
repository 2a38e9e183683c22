"""Fragmented MP4: reading its boxes from a byte stream and packing its fragments into bounded chunks."""
