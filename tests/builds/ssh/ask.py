"""Asks an agent for the names of its keys."""

import socket
import struct
import sys

agent = socket.socket(socket.AF_UNIX)
agent.connect(sys.argv[1])
agent.sendall(b"\0\0\0\1\x0b")
stream = agent.makefile("rb")
(length,) = struct.unpack(">I", stream.read(4))
answer = stream.read(length)
(count,) = struct.unpack(">I", answer[1:5])
at = 5
for _ in range(count):
    for part in ("key", "name"):
        (length,) = struct.unpack(">I", answer[at : at + 4])
        text = answer[at + 4 : at + 4 + length]
        at += 4 + length
    print(text.decode())
