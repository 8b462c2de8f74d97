"""Other processes of a program's function, which do what they are asked."""
import ast
import os
import signal
import subprocess
import sys


def serve_if_asked(functions, start):
    """In a process that Other made: calls functions by name until there is nothing more to do, and ends."""
    if sys.argv[1:2] != ["serve"]:
        return
    start()
    for line in sys.stdin:
        function, *arguments = ast.literal_eval(line)
        print(repr(functions[function](*arguments)), flush=True)
    sys.exit()


class Other:
    """Another process of this function, with these descriptors open."""

    def __init__(self, *descriptors):
        me = [sys.executable, os.path.abspath(sys.argv[0]), "serve", *map(str, descriptors)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(me, stdin=pipe, stdout=pipe, text=True, pass_fds=descriptors)

    def __getattr__(self, function):
        def ask(*arguments):
            self.process.stdin.write(repr((function, *arguments)) + "\n")
            self.process.stdin.flush()
            return ast.literal_eval(self.process.stdout.readline())
        return ask

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
