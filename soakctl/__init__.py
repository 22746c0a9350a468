"""The thin client of soakd: what a user types, and nothing that decides anything about a soak."""
