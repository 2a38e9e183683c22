"""The superblock format v1 and the rules around it, without I/O. docs/superblock-format.md is the reference.

`layout` has the sizes; `header`, `record`, `entries` and `footer` the codecs. `walk` reads a log back, damaged or not,
`settle` decides which records of a tail count, `catalogue` replays them into the compact `index`. `allocator` says
where the next record goes, `snapshot` makes the next start quick.
"""
