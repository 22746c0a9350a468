"""The shim: the small process, one per run, that is the parent of the nodes.

soakd decides, the shim holds. It runs with the submitter's uid, outlives soakd, and must not pull
soakd's nodes down with a bug of its own. It is shipped as one zip in a memfd and runs under the
system's Python, so this folder imports the standard library and itself, nothing else.
"""
