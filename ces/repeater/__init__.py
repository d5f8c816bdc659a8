"""The repeater: carries events between a hub and what lies outside it, by room (protocol.md section 7)."""
