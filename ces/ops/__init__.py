"""What an operator sees and turns: log levels, status, metrics and the HTTP routes of all roles."""
