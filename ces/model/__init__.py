"""Floor 0: events, records, frames and routes.

Everything here is pure: no Twisted, no Autobahn, no sockets, no clock and no logging. Time is an argument.
Links are opaque values. A fault in the input is an exception or a returned reason, worded as a sentence.
"""
