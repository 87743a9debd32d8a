"""Starts the kernel "Python [default]".

ipykernel gathers what forked children print on a TCP port of 127.0.0.1, which
every account of the node can reach. Here it is a socket file beside the
kernel's connection file. Another ipykernel than the known ones is left alone.
"""

import os
import sys

# The directory of this file is no place to import from, and neither is the
# notebook's until the kernel's own modules are there.
sys.path.pop(0)


def connection_file():
    for option, value in zip(sys.argv, sys.argv[1:]):
        if option == "-f":
            return value
    return ""


def forked_output_by_file():
    import zmq
    from ipykernel.iostream import IOPubThread
    from zmq.eventloop.zmqstream import ZMQStream

    place = connection_file()
    known = ("_setup_pipe_in", "_setup_pipe_out", "_handle_pipe_msg")
    if not place or not all(hasattr(IOPubThread, name) for name in known):
        return
    address = "ipc://" + os.path.splitext(place)[0] + "-out"

    def setup_in(self):
        self._pipe_uuid = os.urandom(16)
        pipe = self.socket.context.socket(zmq.PULL)
        pipe.linger = 0
        try:
            pipe.bind(address)
        except zmq.ZMQError:
            self._pipe_flag = False
            pipe.close()
            return
        self._pipe_port = 0
        self._pipe_in = ZMQStream(pipe, self.io_loop)
        self._pipe_in.on_recv(self._handle_pipe_msg)

    def setup_out(self):
        context = zmq.Context()  # a context does not survive a fork
        pipe = context.socket(zmq.PUSH)
        pipe.linger = 3000
        pipe.connect(address)
        return context, pipe

    IOPubThread._setup_pipe_in = setup_in
    IOPubThread._setup_pipe_out = setup_out


if __name__ == "__main__":
    try:
        forked_output_by_file()
    except ImportError:
        pass  # the next line says what is missing
    from ipykernel import kernelapp

    kernelapp.launch_new_instance()
