"""Hosts for tests: systemd machines that boot in seconds, in one network namespace that has no way out.

What exists is looked up, never remembered: processes by their command line, mounts in mountinfo, loop devices by their
backing file, the namespace by its name. Only the list of hosts is kept (`state`). So a lab that was half made, or left
behind by a machine that restarted, is taken down or brought up again by the same commands.

    model       names, addresses, specs of hosts, files written into a host: pure
    state       the list of hosts of one lab, and the lock that serialises commands
    command     running programs; the one error class
    processes   finding, stopping and killing processes
    sources     the machine's own apt sources: pure
    image       the base root file system
    packages    the folder of .debs that hosts install from
    network     namespace, bridge, cables
    disk        loop devices; losing what was not flushed
    root        a host's own root file system over the base
    nspawn      how a host is started, and why so
    host        one host's life: boot, reboot, off, power cut, freeze
    lab         the commands, over all of these
    cli         their command line
"""
