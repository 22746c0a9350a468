"""One file per verb: `add_arguments(parser)` says what it takes, `run(session, options)` does it.

`soakctl.main` imports only the file of the verb that was typed: `soakctl status` pays for
nothing else.
"""
