"""Starts what is measured, and what it is measured with, on free loopback ports.

What belongs to a proxy runs on one core, everything else on the other, so that no
side takes the other's time. Every process is ended by its id.
"""

import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
PASSWORD = "correct horse battery staple"

# Debian keeps servers in sbin, which is not on the path of everybody.
PATH = os.environ["PATH"] + ":/usr/sbin"

ROUTES = '{ path = "/", access = "login" }'

CLOAKROOM = """
routes = [{routes}]
server.listen = ["127.0.0.1:0"]
server.workers = 1
server.limits.connections = 20000
upstreams.app.urls = ["http://127.0.0.1:{backend}"]
upstreams.app.pool_idle = 512
session.secrets = [{{ env = "BENCH_SECRET" }}]
session.cookie.secure = false
store.url = "{store}"
store.timeout = "{timeout}"
login.methods = [{{ kind = "users_file", path = "users.toml" }}]
admin.listen = "127.0.0.1:0"
log.format = "json"
"""

NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
worker_processes 1;
events {{ worker_connections 12000; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 100000000;
    keepalive_timeout 300s;
    upstream app {{ server 127.0.0.1:{backend}; keepalive 512; keepalive_requests 100000000; }}
    upstream auth {{ server 127.0.0.1:{auth}; keepalive 512; keepalive_requests 100000000; }}
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_set_header X-Forwarded-Proto $scheme;
    ssl_certificate {folder}/cert.pem;
    ssl_certificate_key {folder}/key.pem;
    ssl_session_tickets off;
    server {{ listen 127.0.0.1:{auth}; location / {{ return 200; }} }}
    server {{
        listen 127.0.0.1:{plain};
        listen 127.0.0.1:{tls} ssl http2;
        location / {{ {check} proxy_pass http://app; }}
        location = /check {{
            internal;
            proxy_pass http://auth;
            proxy_pass_request_body off;
            # Fields of the outer level hold only where there are none of its own.
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header Content-Length "";
        }}
    }}
}}
"""

HAPROXY = """
global
    nbthread 1
    maxconn 8000
    tune.ssl.cachesize 0
defaults
    mode http
    timeout connect 5s
    timeout client 300s
    timeout server 300s
    http-reuse always
    option forwardfor
frontend plain
    bind 127.0.0.1:{plain}
    default_backend app
frontend tls
    bind 127.0.0.1:{tls} ssl crt {folder}/both.pem alpn h2,http/1.1 no-tls-tickets
    default_backend app
backend app
    server one 127.0.0.1:{backend} pool-max-conn 512
"""


def need(*tools):
    """Where these programs are; a sentence if one is missing."""
    found = []
    for tool in tools:
        path = shutil.which(tool, path=PATH)
        if not path:
            raise SystemExit(f"{tool} is missing: scripts/setup-bench.sh installs it")
        found.append(path)
    return found


def put_between(page, begin, end, text):
    """Replaces what stands between two lines of a page."""
    before, begin, rest = page.read_text().partition(begin)
    _, end, after = rest.partition(end)
    if not (begin and end):
        raise SystemExit(f"{page} has no place for the figures")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Contender:
    """A proxy: all of its processes, where it listens, and the cookie it wants."""

    def __init__(self, name, process, plain, tls=None, cookie=None):
        self.name, self.process = name, process
        self.plain, self.tls, self.cookie = plain, tls, cookie

    def pids(self):
        """Itself and everything that it has started."""
        found, look = [], [self.process.pid]
        while look:
            pid = look.pop()
            found.append(pid)
            for task in Path(f"/proc/{pid}/task").iterdir():
                look += [int(child) for child in (task / "children").read_text().split()]
        return found

    def cpu(self):
        """Seconds that all of its threads have run."""
        spent = 0
        for pid in self.pids():
            for task in Path(f"/proc/{pid}/task").iterdir():
                spent += int((task / "schedstat").read_text().split()[0])
        return spent / 1e9

    def pss(self):
        """Its share of memory, in KiB."""
        total = 0
        for pid in self.pids():
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += next(int(l.split()[1]) for l in text.splitlines() if l.startswith("Pss:"))
        return total


class Lab:
    """A folder and the processes that run in it; all of them end with it."""

    def __init__(self, binary, load, proxy_core=0, other_core=1):
        self.binary, self.load_tool = str(Path(binary).resolve()), str(Path(load).resolve())
        self.cores = {"proxy": proxy_core, "other": other_core}
        self.folder = Path(tempfile.mkdtemp(prefix="cloakroom-bench-"))
        self.children = []
        # Whoever ends this ends what it has started.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        # Thousands of connections are held.
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.backend = None

    def __enter__(self):
        try:
            return self.prepared()
        except BaseException:
            self.__exit__()
            raise

    def prepared(self):
        make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
        names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        names += ["-addext", "basicConstraints=critical,CA:FALSE"]
        files = ["-keyout", "key.pem", "-out", "cert.pem"]
        quiet = subprocess.DEVNULL
        subprocess.run([*make.split(), *names, *files], check=True, cwd=self.folder, stderr=quiet)
        both = (self.folder / "cert.pem").read_text() + (self.folder / "key.pem").read_text()
        (self.folder / "both.pem").write_text(both)
        self.backend = self.printed_port(self.start("other", [self.load_tool, "backend"]))
        return self

    def __exit__(self, *_):
        for child in reversed(self.children):
            if child.poll() is None:
                child.terminate()
        for child in self.children:
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, core, command, log=None, **more):
        pinned = ["taskset", "-c", str(self.cores[core]), *command]
        out = open(self.folder / log, "wb") if log else subprocess.PIPE
        child = subprocess.Popen(
            pinned, cwd=self.folder, stdin=subprocess.PIPE, stdout=out, stderr=out if log else None, **more
        )
        self.children.append(child)
        return child

    def printed_port(self, child):
        line = child.stdout.readline().strip()
        if not line:
            raise RuntimeError("a process ended before it said its port")
        return int(line)

    def listening(self, port, child, what, log):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and child.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise RuntimeError(f"{what} did not start: {(self.folder / log).read_text()}")

    def redis(self):
        """Starts one, and says on which port."""
        port = free_port()
        self.redis_at(port)
        return port

    def redis_at(self, port, keeps="no"):
        """Starts one at this port; `keeps`: whether it keeps what it has on the disk."""
        options = ["--bind", "127.0.0.1", "--port", str(port), "--save", ""]
        options += ["--appendonly", keeps, "--dir", str(self.folder)]
        child = self.start("other", [*need("redis-server"), *options], log="redis.log")
        self.listening(port, child, "Redis", "redis.log")
        return child

    def cloakroom(self, name, store, tls=False, more="", wrapper=(), patience=20, timeout="10s", routes=ROUTES):
        """Starts one, and signs somebody in."""
        folder = self.folder / re.sub(r"\W+", "-", f"{name}-{tls}")
        folder.mkdir()
        add = [self.binary, "user", "add", "alice", "--password-stdin", "--file", "users.toml"]
        quiet = subprocess.DEVNULL
        subprocess.run(add, input=PASSWORD.encode(), check=True, cwd=folder, stderr=quiet)
        text = CLOAKROOM.format(backend=self.backend, store=store, timeout=timeout, routes=routes) + more
        if tls:
            pair = f'cert = "{self.folder}/cert.pem", key = "{self.folder}/key.pem"'
            text += f"\nserver.tls.certificates = [{{ {pair} }}]\n"
        (folder / "cloakroom.toml").write_text(text)
        log = folder / "log"
        child = self.start(
            "proxy",
            [*wrapper, self.binary, "run", "-c", str(folder / "cloakroom.toml")],
            log=log,
            env={**os.environ, "BENCH_SECRET": "f3Vx9Qk2Lw8Zr5Tn1Yb7Hd4Gs6Jp0McA"},
        )
        deadline = time.monotonic() + patience
        while '"ready"' not in (said := log.read_text(errors="replace")):
            if time.monotonic() > deadline or child.poll() is not None:
                raise RuntimeError(f"not ready: {said}")
            time.sleep(0.02)
        port = int(re.search(r"listening on https?://127\.0\.0\.1:(\d+)", said)[1])
        cookie = None
        if not tls:
            body = json.dumps({"username": "alice", "password": PASSWORD}).encode()
            cookie = signed_in(f"http://127.0.0.1:{port}/auth/login", body, patience)
        return Contender(name, child, None if tls else port, port if tls else None, cookie)

    def nginx(self, name, check=""):
        folder = self.folder / re.sub(r"\W+", "-", name)
        folder.mkdir()
        for file in ("cert.pem", "key.pem"):
            shutil.copy(self.folder / file, folder)
        ports = {key: free_port() for key in ("plain", "tls", "auth")}
        text = NGINX.format(folder=folder, backend=self.backend, check=check, **ports)
        (folder / "nginx.conf").write_text(text)
        command = [*need("nginx"), "-c", str(folder / "nginx.conf"), "-p", str(folder)]
        child = self.start("proxy", command, log=folder / "log")
        self.listening(ports["plain"], child, name, folder / "log")
        return Contender(name, child, ports["plain"], ports["tls"])

    def haproxy(self, name):
        ports = {key: free_port() for key in ("plain", "tls")}
        text = HAPROXY.format(folder=self.folder, backend=self.backend, **ports)
        (self.folder / "haproxy.cfg").write_text(text)
        command = [*need("haproxy"), "-db", "-f", str(self.folder / "haproxy.cfg")]
        child = self.start("proxy", command, log="haproxy.log")
        self.listening(ports["plain"], child, name, "haproxy.log")
        return Contender(name, child, ports["plain"], ports["tls"])

    def express(self, name, redis):
        server = [*need("node"), str(HERE / "express/server.js")]
        environment = {**os.environ, "NODE_ENV": "production"}
        child = self.start("proxy", [*server, str(redis), str(self.backend)], env=environment)
        port = self.printed_port(child)
        cookie = signed_in(f"http://127.0.0.1:{port}/login", b"{}", 20)
        return Contender(name, child, port, None, cookie)

    def load(self, port, *options, cookie=None, tls=False):
        """Asks, and says what came of it."""
        command = ["taskset", "-c", str(self.cores["other"]), self.load_tool, "load"]
        command += [f"127.0.0.1:{port}", *map(str, options)]
        if cookie:
            command += ["--cookie", cookie]
        if tls:
            command += ["--ca", str(self.folder / "cert.pem")]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        return json.loads(done.stdout)


def signed_in(url, body, patience):
    """The cookie that an answer sets."""
    origin = url.rsplit("/", 1)[0].removesuffix("/auth")
    headers = {"content-type": "application/json", "origin": origin}
    request = urllib.request.Request(url, body, headers, method="POST")
    # A proxy of the network is none for this machine.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=patience) as response:
        return response.headers["set-cookie"].partition(";")[0]
