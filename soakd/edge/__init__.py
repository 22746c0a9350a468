"""The outside world: one small file per outside thing, none importing another (clock excepted)."""
