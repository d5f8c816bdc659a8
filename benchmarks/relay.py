"""A relay that shows what the kernel can move: passes bytes from the first connection to all others.

``python relay.py PORT``. For each block of 64 KiB it makes one system call to read, and one per other
connection to write. Connections made after the first byte are not served.
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
