"""Sending and waiting on a socket whose time-out is for standing still, not for being slow."""

from __future__ import annotations

import fcntl
import select
import socket
import ssl
import struct
import termios
from contextlib import suppress


def send_all(sock: socket.socket, block: bytes) -> None:
    """As sendall, whose timeout is for all of it: here it is for the next byte, however slow the line is."""
    view = memoryview(block)
    while view:
        view = view[sock.send(view):]


def await_reply(sock: socket.socket, stall_s: float) -> None:
    """Waits until something comes; what still leaves this machine counts as movement.

    Raises:
        TimeoutError: nothing moved for ``stall_s``.
    """
    waiting = _unsent(sock)
    while not (isinstance(sock, ssl.SSLSocket) and sock.pending()) and not select.select([sock], [], [], stall_s)[0]:
        left = _unsent(sock)
        if left >= waiting:
            raise TimeoutError
        waiting = left


def _unsent(sock: socket.socket) -> int:
    """Bytes that wait in this machine, or are not acknowledged; 0 where the system does not tell
    (SIOCOUTQ, https://man7.org/linux/man-pages/man7/tcp.7.html)."""
    with suppress(OSError):
        return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0])
    return 0
