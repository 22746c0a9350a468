"""What soakd and soakctl say to each other: frames, methods, error codes.

Both programs import this package, so it needs only the standard library and msgpack, and it avoids
modules that are dear to import (`dataclasses` alone costs a third of soakctl's start-up).
"""
