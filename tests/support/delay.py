#!/usr/bin/env python3
"""delay.py DEVICE MILLISECONDS: every packet that is routed into the TUN device comes out of it again, that much later.

For kernels without netem. Packets keep their order; a queue of 10 000 is the most that is held.
"""
import collections
import fcntl
import os
import select
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000

device, delay = sys.argv[1], int(sys.argv[2]) / 1000
tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI))

held = collections.deque()
while True:
    wait = max(0, held[0][0] - time.monotonic()) if held else None
    readable, _, _ = select.select([tun], [], [], wait)
    if readable:
        packet = os.read(tun, 65536)
        if len(held) < 10_000:
            held.append((time.monotonic() + delay, packet))
    while held and held[0][0] <= time.monotonic():
        try:
            os.write(tun, held.popleft()[1])
        except OSError:  # A packet that the kernel no longer wants is a packet lost.
            pass
