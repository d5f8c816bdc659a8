"""Tools for operators: log levels, status, metrics and the HTTP routes that all roles share."""
