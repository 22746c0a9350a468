"""Decisions only: no clock, no files, no sockets, no tasks, no logging.

Everything here is a plain function or a frozen value; whoever calls passes the time in.
"""
