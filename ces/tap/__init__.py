"""The entry points of twistd: the options of each role and the service made from them.

The reactor enters here.
"""
