"""The servers that the contestants work against: PostgreSQL, an S3 server, and a relay that counts requests."""

import re
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

ACCESS_KEY, SECRET_KEY = "pacharc-bench", "pacharc-bench-secret"

# As for a production server of a few cores: what PostgreSQL's documentation advises to raise, and durable.
POSTGRESQL = {
    "fsync": "on", "synchronous_commit": "on", "full_page_writes": "on",
    "shared_buffers": "1GB", "effective_cache_size": "4GB", "work_mem": "16MB", "maintenance_work_mem": "256MB",
    "max_wal_size": "4GB", "checkpoint_timeout": "15min", "checkpoint_completion_target": "0.9",
    "random_page_cost": "1.1", "max_parallel_maintenance_workers": "2",
}


class Postgres:
    """A server in a folder, which may hold one from an earlier run."""

    def __init__(self, sample, folder):
        self.sample, self.folder = sample, Path(folder)
        settings = [f"--set={name}={value}" for name, value in POSTGRESQL.items()]
        command = [sample, "server", "start", "--dir", folder, *settings]
        self.url = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        self.port = re.search(r":(\d+)/", self.url).group(1)

    def database(self, name):
        return self.url.rsplit("/", 1)[0] + "/" + name

    def sql(self, database, statement, path):
        command = ["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1",
                   "--command", statement, self.database(database)]
        return subprocess.run(command, env={"PATH": path}, capture_output=True, text=True, check=True).stdout.strip()

    def stop(self):
        subprocess.run([self.sample, "server", "stop", "--keep", "--dir", self.folder], check=False)


class S3:
    """versitygw, which keeps an object as a file, or MinIO."""

    def __init__(self, kind, program, folder):
        self.kind, self.folder, self.port = kind, Path(folder), free_port()
        self.folder.mkdir(parents=True, exist_ok=True)
        address = f"127.0.0.1:{self.port}"
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self.folder)}
        if kind == "minio":
            environment |= {"MINIO_ROOT_USER": ACCESS_KEY, "MINIO_ROOT_PASSWORD": SECRET_KEY}
            command = [program, "server", "--quiet", "--address", address, folder]
        else:
            command = [program, "--port", address, "--access", ACCESS_KEY, "--secret", SECRET_KEY, "--quiet", "--keep-alive",
                       "posix", folder]
        self.child = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL)
        self.endpoint = f"http://{address}"
        wait_for(self.port, self.child)

    def settle(self):
        """Leaves the server nothing to do: MinIO removes much later what was deleted, and counts it as full till then."""
        trash = self.folder / ".minio.sys/tmp/.trash"
        # It clears there, too, and may be quicker with some of it.
        for entry in trash.iterdir() if trash.is_dir() else ():
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)

    def stop(self):
        self.child.terminate()
        self.child.wait()


class Relay:
    """Passes bytes on to a server on another port of this machine, and notes the requests among them."""

    def __init__(self, port):
        self.target, self.requests, self.received = port, [], 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.target))
            threading.Thread(target=self.pass_on, args=(client, server, self.note), daemon=True).start()
            threading.Thread(target=self.pass_on, args=(server, client, self.count), daemon=True).start()

    @staticmethod
    def pass_on(source, sink, seen):
        try:
            while data := source.recv(1 << 16):
                seen(data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def note(self, data):
        # A reader's requests are short and have no body: each comes whole.
        for head in re.findall(rb"(?:^|\r\n\r\n)((?:GET|HEAD) .*?)(?=\r\n\r\n|$)", data, re.DOTALL):
            span = re.search(rb"\r\nrange: *bytes=([^\r]*)", head, re.IGNORECASE)
            self.requests.append((head.split(b" ", 1)[0].decode(), span.group(1).decode() if span else ""))

    def count(self, data):
        self.received += len(data)

    def stop(self):
        self.listener.close()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def wait_for(port, child):
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError as error:
            if child.poll() is not None:
                raise RuntimeError(f"the server ended with exit code {child.returncode}") from error
            time.sleep(0.1)
    raise RuntimeError(f"nothing listens on port {port}")
