"""The storage node: superblock files on one disk, acceptor records beside them, served over HTTP."""
