"""The hub: takes events from its links and passes them on by room (docs/protocol.md section 6)."""
