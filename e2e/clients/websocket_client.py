#!/usr/bin/env python3
"""Goes to a URL that CRI's Exec, Attach or PortForward answered, with the WebSocket client that Python users have, and
prints what came as JSON.

    websocket_client.py command URL PROTOCOL [--input TEXT] [--close]
    websocket_client.py forward URL PROTOCOL --input TEXT

With --close the input's channel is closed after the text (version 5). `forward` sends the text on every port and leaves
when as much has come back on each. Needs Debian's python3-websocket.
"""

import argparse
import base64
import json

import websocket

CLOSE = 255


class Channels:
    """Messages whose first byte, or digit, is a channel."""

    def __init__(self, url, protocol):
        self.text = "base64" in protocol
        self.socket = websocket.create_connection(
            url.replace("http", "ws", 1), subprotocols=[protocol] if protocol else None, timeout=60)
        self.received = {}

    def send(self, channel, data):
        if self.text:
            self.socket.send(str(channel) + base64.b64encode(data).decode())
        else:
            self.socket.send_binary(bytes([channel]) + data)

    def close(self, channel):
        self.socket.send_binary(bytes([CLOSE, channel]))

    def receive(self):
        """Takes a message; false at the end."""
        opcode, data = self.socket.recv_data()
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            return False
        channel = data[0] - ord("0") if self.text else data[0]
        data = base64.b64decode(data[1:], validate=True) if self.text else data[1:]
        self.received[channel] = self.received.get(channel, b"") + data
        return True


def command(options):
    channels = Channels(options.url, options.protocol)
    if options.input:
        channels.send(0, options.input.encode())
    if options.close:
        channels.close(0)
    while channels.receive():
        pass
    return {"protocol": channels.socket.subprotocol,
            "channels": {str(number): data.decode() for number, data in channels.received.items()}}


def forward(options):
    channels = Channels(options.url, options.protocol)
    wanted = options.input.encode()
    # Both channels of a port begin with its number, before anything else comes.
    sent = set()
    while True:
        for number, data in list(channels.received.items()):
            if number % 2 == 0 and len(data) >= 2 and number not in sent:
                channels.send(number, wanted)
                sent.add(number)
        data = {number: text for number, text in channels.received.items() if number % 2 == 0}
        if len(data) >= 2 and all(len(text) >= 2 + len(wanted) for text in data.values()):
            break
        if not channels.receive():
            break
    channels.socket.close()
    return {"ports": [int.from_bytes(data[number][:2], "little") for number in sorted(data)],
            "replies": [data[number][2:].decode() for number in sorted(data)]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["command", "forward"])
    parser.add_argument("url")
    parser.add_argument("protocol")
    parser.add_argument("--input", default="")
    parser.add_argument("--close", action="store_true")
    options = parser.parse_args()
    print(json.dumps({"command": command, "forward": forward}[options.kind](options)))


if __name__ == "__main__":
    main()
