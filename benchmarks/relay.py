"""What the kernel moves: passes bytes from the first connection to all others, and does nothing else.

``python relay.py PORT``. Blocks of 64 KiB: one system call in, one out for each of the others. Whoever
connects after the first byte came is not served.
"""

import select
import socket
import sys

listening = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1024)
first, _ = listening.accept()
others = []
while listening in select.select([listening, first], [], [])[0]:
    others.append(listening.accept()[0])
block = memoryview(bytearray(65536))
while size := first.recv_into(block):
    for other in others:
        other.sendall(block[:size])
