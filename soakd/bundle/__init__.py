"""Bundles: what the helper of `collect` packs, redacts and compresses, and what reads them.

All files here can run inside the helper, as the submitter, under any Python >= 3.11 with `-I -S`:
standard library only, and of soakd nothing but this folder. `soakd/edge/packer.py` starts it.
"""
