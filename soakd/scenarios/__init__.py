"""What a round is: each scenario plays one pure round machine against real nodes."""
