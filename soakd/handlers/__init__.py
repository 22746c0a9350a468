"""What soakd does for each method of the wire: one file per verb, and the dispatcher."""
