"""The smart client: measures every node, picks one for each chunk, plays without stalls."""
