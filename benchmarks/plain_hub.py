"""A minimal hub after Autobahn's broadcast example. The real hub is compared with it.

Speaks ces.1 only: every binary message is one record and is passed on unchanged; text messages change the
subscription. ``python plain_hub.py PORT [PEER_PORT]``: with PEER_PORT it also links to the plain hub there.
"""

import json
import sys
from collections import defaultdict

from autobahn.twisted.websocket import (
    WebSocketClientFactory,
    WebSocketClientProtocol,
    WebSocketServerFactory,
    WebSocketServerProtocol,
)
from twisted.internet import reactor

rooms = defaultdict(set)
hubs = set()


class Serving(WebSocketServerProtocol):
    def onConnect(self, request):
        self.hub = request.path == "/connect/hub"

    def onOpen(self):
        if self.hub:
            hubs.add(self)

    def onMessage(self, payload, isBinary):
        if not isBinary:
            change = json.loads(payload)
            for room in change["rooms"]:
                (rooms[room.encode()].add if change["create"] else rooms[room.encode()].discard)(self)
            return
        message = factory.prepareMessage(payload, isBinary=True)
        room = payload[: payload.index(b"\n")]
        for link in rooms[room] | hubs if hubs and not self.hub else rooms[room]:
            if link is not self:
                link.sendPreparedMessage(message)

    def onClose(self, wasClean, code, reason):
        hubs.discard(self)
        for links in rooms.values():
            links.discard(self)


class Dialling(WebSocketClientProtocol):
    hub = True
    onMessage = Serving.onMessage
    onClose = Serving.onClose

    def onOpen(self):
        hubs.add(self)

    # A prepared message is not masked, but a client must mask its frames.
    def sendPreparedMessage(self, message):
        self.sendMessage(message.payload, isBinary=True)


factory = WebSocketServerFactory()
factory.protocol = Serving
reactor.listenTCP(int(sys.argv[1]), factory, interface="127.0.0.1", backlog=1024)
if len(sys.argv) > 2:
    other = WebSocketClientFactory(f"ws://127.0.0.1:{sys.argv[2]}/connect/hub")
    other.protocol = Dialling
    reactor.connectTCP("127.0.0.1", int(sys.argv[2]), other)
reactor.run()
