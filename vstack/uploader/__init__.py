"""The uploader: receives a file, cuts it with ffmpeg, packs chunks and stores them, with honest progress."""
