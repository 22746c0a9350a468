"""What knows one kind of node program; the rest of soakd does not know any."""
