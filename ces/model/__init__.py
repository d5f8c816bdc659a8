"""Floor 0: what an event, a record, a frame and a route are.

Everything here is pure: no Twisted, no Autobahn, no sockets, no clock and no logging. Time comes in as an
argument, links are opaque values, and what is wrong with an input is an exception or a returned reason that
says so in a sentence.
"""
