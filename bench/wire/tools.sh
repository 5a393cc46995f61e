#!/usr/bin/env bash
# Other people's tools against a listener with TLS: slowhttptest and testssl.sh.
#
#   bench/wire/tools.sh target/release/cloakroom FOLDER
#
# Starts Cloakroom on free loopback ports with a certificate of its own and leaves
# what the tools say in FOLDER. Needs the packages slowhttptest, testssl.sh, openssl
# and python3. Takes about five minutes. Says what it found and judges nothing:
# docs/wire-results.md does.
set -euo pipefail

[ $# -eq 2 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
binary=$(realpath "$1")
mkdir -p "$2"
results=$(realpath "$2")
testssl=$(command -v testssl || command -v testssl.sh)

work=$(mktemp -d)
children=()
finish() {
    for child in "${children[@]}"; do kill "$child" 2>/dev/null || true; done
    wait || true
    rm -rf "$work"
}
trap finish EXIT
cd "$work"

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
    -subj /CN=localhost -addext subjectAltName=DNS:localhost \
    -keyout key.pem -out cert.pem 2>/dev/null

# An application that answers everything with 1 MiB, which a slow reader cannot
# have taken in by accident.
cat >app.py <<'PYTHON'
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        length = int(self.headers.get("content-length", 0))
        self.rfile.read(length)
        self.send_response(200)
        self.send_header("content-length", str(1 << 20))
        self.end_headers()
        self.wfile.write(bytes(1 << 20))

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
PYTHON
python3 app.py >app.port 2>app.log &
children+=($!)
until [ -s app.port ]; do sleep 0.1; done

cat >cloakroom.toml <<TOML
server.listen = ["127.0.0.1:0"]
server.tls.certificates = [{ cert = "cert.pem", key = "key.pem" }]
server.tls.hsts = "365d"
upstreams.app.urls = ["http://127.0.0.1:$(cat app.port)"]
routes = [{ path = "/", access = "public" }]
session.secrets = [{ env = "WIRE_SECRET" }]
store.url = "memory:"
login.methods = [{ kind = "users_file", path = "users.toml" }]
admin.listen = "off"
log.format = "json"
log.access = false
TOML
printf 'nobody at all needs this\n' |
    "$binary" user add nobody --password-stdin --file users.toml 2>/dev/null
WIRE_SECRET=$(openssl rand -hex 32) "$binary" run -c cloakroom.toml >cloakroom.log 2>&1 &
children+=($!)
cloakroom=$!
until grep -qs '"ready"' cloakroom.log; do
    kill -0 "$cloakroom" || { cat cloakroom.log >&2; exit 1; }
    sleep 0.1
done
port=$(sed -n 's#.*listening on https://127\.0\.0\.1:\([0-9]*\).*#\1#p' cloakroom.log | head -1)
url="https://localhost:$port/"

memory() { grep -E 'VmRSS|VmHWM' "/proc/$cloakroom/status" | tr '\n' ' '; }
served() {
    curl -sS -o /dev/null --max-time 10 --cacert cert.pem -w '%{http_code} %{time_total}' "$url"
}

slow() {
    local name=$1
    shift
    slowhttptest -c 500 -r 100 -l 90 -p 3 -u "$url" "$@" >"$results/$name.txt" 2>&1 &
    local attack=$!
    # In the middle of it, is somebody else served?
    sleep 10
    printf '%s: another client: %s s; %s\n' "$name" "$(served)" "$(memory)"
    wait "$attack" || true
    # Colours and the updates of each second are of no use here.
    sed -i 's/\x1b\[[0-9;]*[A-Za-z]//g' "$results/$name.txt"
    grep -aE 'Exit status|Test ended|closed:|connected:|error:' "$results/$name.txt" | tail -5
}

slow slowloris -H -i 5 -x 24
slow slow-body -B -i 5 -s 65536 -x 10
slow slow-read -X -w 512 -y 1024 -n 5 -z 32 -k 3
printf 'afterwards: %s s; %s\n' "$(served)" "$(memory)"

"$testssl" --quiet --color 0 --warnings batch --add-ca cert.pem --openssl-timeout 10 \
    "localhost:$port" >"$results/testssl.txt" 2>&1 || true
grep -aE 'not ok|NOT ok|VULNERABLE|WARN|Grade' "$results/testssl.txt" || true
