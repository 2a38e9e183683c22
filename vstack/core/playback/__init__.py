"""Playback decisions without I/O: what to fetch next, from which node, when to play and when to give up.

`plan` names what there is to fetch, `scoring` remembers how nodes behave, `buffer` is the playback clock, `scheduler`
picks downloads, and `machine` joins them into the one state machine that `vstack.client` drives.
"""
