"""Pure logic: no sockets, files, clocks, randomness or event loop. What is time or chance is passed in."""
