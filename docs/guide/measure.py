#!/usr/bin/env python3
"""Measures mtpolicyd beside mtpolicyd 2.05, postfwd and postgrey: processor time per request, and memory.

    measure.py [NAME=COMMAND ...]

NAME is one of mtpolicyd, perl, postfwd, postgrey; COMMAND is the program, by default that of Debian,
and target/release/mtpolicyd. A daemon that is missing is left out. All listen on ports of the loopback;
nothing else is changed. The table is printed as Markdown.
"""
import os
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROUNDS = 5
CONNECTIONS = 4
PROGRAMS = {
    "mtpolicyd": "target/release/mtpolicyd",
    "perl": "/usr/bin/mtpolicyd",
    "postfwd": "/usr/sbin/postfwd2",
    "postgrey": "/usr/sbin/postgrey",
}


def request(number, client=None):
    lines = {
        "request": "smtpd_access_policy", "protocol_state": "RCPT", "protocol_name": "ESMTP",
        "client_address": client or f"198.18.{number // 250 % 250}.{number % 250}",
        "client_name": f"mail{number}.example.net", "reverse_client_name": f"mail{number}.example.net",
        "helo_name": f"mail{number}.example.net", "sender": f"user{number}@sender{number % 500}.example",
        "recipient": "bob@example.org", "recipient_count": "0", "queue_id": "",
        "instance": f"{time.time_ns():x}.{number}",
        "size": "12345", "sasl_username": "", "encryption_protocol": "TLSv1.3", "encryption_keysize": "256",
    }
    return "".join(f"{name}={value}\n" for name, value in lines.items()).encode() + b"\n"


class Daemon:
    """A daemon at work, with all processes that it has started."""

    def __init__(self, command, port, pid_file=None):
        self.port = port
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL, start_new_session=True)
        until = time.monotonic() + 30
        while True:
            try:
                self.connections = [self.connect() for _ in range(CONNECTIONS)]
                return
            except OSError:
                if time.monotonic() > until or (not pid_file and self.process.poll() is not None):
                    raise
                time.sleep(0.1)
            finally:
                # One that goes into the background has a session of its own.
                self.session = self.process.pid
                if pid_file and os.path.exists(pid_file):
                    self.session = int(open(pid_file).read() or 0)

    def connect(self):
        connection = socket.create_connection(("127.0.0.1", self.port), 30)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def processes(self):
        ids = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    fields = open(f"/proc/{entry}/stat").read().rsplit(")", 1)[1].split()
                except OSError:
                    continue
                if int(fields[3]) == self.session:
                    ids.append(int(entry))
        return ids

    def seconds(self):
        """What its threads have run, as the scheduler counts it: in nanoseconds, not in ticks."""
        total = 0
        for process in self.processes():
            for thread in os.listdir(f"/proc/{process}/task"):
                total += int(open(f"/proc/{process}/task/{thread}/schedstat").read().split()[0])
        return total / 1e9

    def memory(self):
        total = 0
        for process in self.processes():
            try:
                text = open(f"/proc/{process}/smaps_rollup").read()
            except OSError:
                continue
            total += int(text.split("\nPss:")[1].split()[0])
        return total / 1024

    def ask(self, text, connection=0):
        self.connections[connection].sendall(text)
        answer = b""
        while not answer.endswith(b"\n\n"):
            part = self.connections[connection].recv(4096)
            if not part:
                raise OSError("closed")
            answer += part
        return answer

    def measure(self, texts, expected):
        """Microseconds of processor time for each request; all connections have one in flight."""
        before, sent, answers = self.seconds(), 0, 0
        for start in range(0, len(texts), CONNECTIONS):
            batch = texts[start:start + CONNECTIONS]
            for connection, text in zip(self.connections, batch):
                connection.sendall(text)
                sent += 1
            for connection in self.connections[:len(batch)]:
                answer = b""
                while not answer.endswith(b"\n\n"):
                    answer += connection.recv(4096)
                answers += expected in answer.lower()
        if answers != sent:
            raise RuntimeError(f"{sent - answers} of {sent} answers are others than {expected}")
        return (self.seconds() - before) / sent * 1e6

    def stop(self):
        for connection in self.connections:
            connection.close()
        for process in self.processes():
            try:
                os.kill(process, signal.SIGTERM)
            except OSError:
                pass
        self.process.wait(20)


HEAD = """user=root
group=root
pid_file="{folder}/{name}.pid"
port="127.0.0.1:{port}"
log_level=0
keepalive_timeout=600
max_keepalive=0
request_timeout=20
{more}<VirtualHost {port}>
 name="measured"
{plugins}</VirtualHost>
"""
CONDITIONS = "".join(
    f' <Plugin c{n}>\n  module = "Condition"\n  key = "sender"\n  match = "nobody{n}@example.invalid"\n'
    f'  action = "reject"\n </Plugin>\n' for n in range(20))
CONDITIONS += ' <Plugin end>\n  module = "Action"\n  action = "dunno"\n </Plugin>\n'
FIXED = ' <Plugin reject>\n  module = "Action"\n  action = "reject not today"\n </Plugin>\n'
GREYLIST = ' <Plugin greylist>\n  module = "Greylist"\n  client_key = "net"\n  min_retry_wait = 1\n' \
    '  autowl_threshold = 1\n  mode = "dunno"\n  <Ticket>\n   module = "Sql"\n  </Ticket>\n </Plugin>\n'
DATABASE = '<Connection db>\n module = "Sql"\n dsn = "dbi:SQLite:dbname={folder}/db.sqlite"\n</Connection>\n'


def policy_daemon(program, name, port, folder, plugins, more=""):
    path = f"{folder}/{name}.conf"
    text = HEAD.format(folder=folder, name=name, port=port, plugins=plugins, more=more.format(folder=folder))
    open(path, "w").write(text)
    os.chmod(path, 0o600)
    return Daemon(program + ["-f", "-c", path], port)


def postfwd(program, port, folder, rules):
    path = f"{folder}/postfwd.{port}.cf"
    open(path, "w").write(rules)
    pid_file = f"{folder}/postfwd.{port}.pid"
    return Daemon(program + ["--perfmon", "--user", "root", "--group", "root", "--interface", "127.0.0.1",
                             "--port", str(port), "--cache_port", str(port + 1), "--cache", "0", "--nodns",
                             "--pidfile", pid_file, "-f", path], port, pid_file)


def postgrey(program, port, folder):
    os.mkdir(f"{folder}/postgrey")
    empty = f"{folder}/empty"
    open(empty, "w").close()
    return Daemon(program + [f"--inet=127.0.0.1:{port}", "--delay=1", f"--dbdir={folder}/postgrey", "--quiet",
                             "--user=root", "--group=root", "--auto-whitelist-clients=0",
                             f"--whitelist-clients={empty}", f"--whitelist-recipients={empty}"], port)


def start(workload, programs, folder, port):
    """The daemons that can do it."""
    found = {}
    for name, program in programs.items():
        port += 10
        if name in ("mtpolicyd", "perl") and workload != "greylist":
            plugins = FIXED if workload == "fixed" else CONDITIONS
            found[name] = policy_daemon(program, name, port, folder, plugins)
        elif name == "mtpolicyd":
            found[name] = policy_daemon(program, name, port, folder, GREYLIST, DATABASE)
        elif name == "postfwd" and workload == "fixed":
            found[name] = postfwd(program, port, folder, "id=R1; action=REJECT not today\n")
        elif name == "postfwd" and workload == "conditions":
            rules = "".join(f"id=R{n}; sender==nobody{n}@example.invalid; action=REJECT\n" for n in range(20))
            found[name] = postfwd(program, port, folder, rules + "id=END; action=DUNNO\n")
        elif name == "postgrey" and workload == "greylist":
            found[name] = postgrey(program, port, folder)
    return found


EXPECTED = {"fixed": b"reject not today", "conditions": b"dunno", "greylist": b"dunno"}
NUMBER = {"mtpolicyd": 4000, "perl": 1000, "postfwd": 1000, "postgrey": 1000}


def measure(workload, programs, port):
    with tempfile.TemporaryDirectory() as folder:
        daemons = start(workload, programs, folder, port)
        try:
            for daemon in daemons.values():
                if workload == "greylist":
                    for wait in (2.5, 0):
                        for number in range(500):
                            daemon.ask(request(number))
                        time.sleep(wait)
                else:
                    daemon.measure([request(number) for number in range(400)], EXPECTED[workload])
            costs = {name: [] for name in daemons}
            for _ in range(ROUNDS):
                for name, daemon in daemons.items():
                    texts = [request(number % 500) for number in range(NUMBER[name])]
                    costs[name].append(daemon.measure(texts, EXPECTED[workload]))
            first = statistics.median(costs["mtpolicyd"])
            for name, values in costs.items():
                middle = statistics.median(values)
                print(f"| {workload} | {name} | {middle:.0f} | {middle / first:.1f} | "
                      f"{min(values):.0f}-{max(values):.0f} | {daemons[name].memory():.0f} | "
                      f"{len(daemons[name].processes())} |", flush=True)
        finally:
            for daemon in daemons.values():
                daemon.stop()


def main():
    for argument in sys.argv[1:]:
        name, _, command = argument.partition("=")
        PROGRAMS[name] = command
    programs = {name: shlex.split(command) for name, command in PROGRAMS.items()}
    programs = {name: command for name, command in programs.items() if os.path.exists(command[-1])}
    print("| workload | daemon | us for each request | ratio | range | MiB | processes |")
    print("|---|---|---|---|---|---|---|")
    for number, workload in enumerate(("fixed", "conditions", "greylist")):
        measure(workload, programs, 21000 + 100 * number)


main()
