"""Bundles: what the helper of `collect` packs, redacts and compresses.

All files here run inside the helper, as the submitter, under any Python >= 3.11 with `-I -S`:
standard library only, and of soakd nothing but this folder. `soakd/edge/packer.py` starts them.
"""
