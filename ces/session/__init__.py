"""Sessions: what waits for a link, what is in flight, what is retransmitted. Pure."""
