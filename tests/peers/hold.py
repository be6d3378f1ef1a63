"""Holds a listening socket as a service manager does (sd_listen_fds(3)).

hold.py ADDRESS PORT PROGRAM ARGUMENT...: listens, then starts the program with the socket as descriptor 3. When a line comes on
standard input the program is told to stop (SIGTERM), and started anew once it has ended. Ends with its input.
"""

import os
import signal
import socket
import sys


def start(listener, words):
    child = os.fork()
    if child == 0:
        os.dup2(listener.fileno(), 3)
        os.set_inheritable(3, True)
        os.environ["LISTEN_PID"] = str(os.getpid())
        os.environ["LISTEN_FDS"] = "1"
        os.execv(words[0], words)
    print(child, flush=True)
    return child


def main():
    address, port, words = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen(4096)
    child = start(listener, words)
    for _ in sys.stdin:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        child = start(listener, words)
    os.kill(child, signal.SIGTERM)
    os.waitpid(child, 0)


main()
