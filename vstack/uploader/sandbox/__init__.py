"""ffmpeg and ffprobe on files from strangers: bounded, blind, and never left behind.

Every run is a *job*: a small process of its own (`job`) that is asked over a connection, starts the program under
limits and lives exactly as long as the connection. Who starts the job is the only difference between hosts: systemd,
in a unit without network (systemd/vstack-media@.service), or the uploader itself. `running.run` is the way in;
`command` is what a program is told in any case.
"""
