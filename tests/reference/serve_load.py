"""Time and memory of many requests to a server `serve` that runs already (Linux).

    cargo build --release -p aigc-examples-serve --example serve
    target/release/examples/serve --low-steps 4 &
    python tests/reference/serve_load.py http://127.0.0.1:8080/v1 $! --requests 1000

After 200 requests, in which the server's threads and allocator take what they need, two rounds of
requests in sequence and as many sixteen at a time. Each is of one image of 64x64 pixels in the
quality `low`, answered in base64, so that the server keeps nothing on purpose. The resident size is
that of the process whose id is given. The first request that fails ends the script.
"""
import argparse, http.client, json, pathlib, threading, time, urllib.parse

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("url", help="base URL of the server, such as http://127.0.0.1:8080/v1")
parser.add_argument("process", type=int, help="its process id")
parser.add_argument("--requests", type=int, default=1000, help="requests of each phase")
options = parser.parse_args()

base = urllib.parse.urlsplit(options.url)
status = pathlib.Path(f"/proc/{options.process}/status")
body = json.dumps({"prompt": "two red circles left of a blue square", "quality": "low", "size": "64x64",
                   "response_format": "b64_json"})


def resident():
    """MiB that the server occupies."""
    sizes = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(sizes["VmRSS"].split()[0]) / 1024


def ask():
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection(base.hostname, base.port, timeout=600)
    try:
        connection.request("POST", base.path.rstrip("/") + "/images/generations", body,
                           {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = json.loads(response.read())
    finally:
        connection.close()
    if response.status != 200 or not answer["data"][0]["b64_json"]:
        raise RuntimeError(f"status {response.status}: {answer}")


def ask_many(count, at_once):
    """Sends `count` requests, `at_once` of them at a time; returns the seconds."""
    numbers, failures, lock = iter(range(count)), [], threading.Lock()

    def work():
        while True:
            with lock:
                if failures or next(numbers, None) is None:
                    return
            try:
                ask()
            except Exception as failure:
                failures.append(failure)

    threads = [threading.Thread(target=work) for _ in range(at_once)]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise SystemExit(f"a request failed: {failures[0]}")
    return time.monotonic() - start


print(f"before: {resident():.1f} MiB resident")
ask_many(100, 1)
ask_many(100, 16)
print(f"after 200: {resident():.1f} MiB resident", flush=True)
for name, at_once in [("in sequence", 1), ("sixteen at a time", 16)] * 2:
    size = resident()
    seconds = ask_many(options.requests, at_once)
    now = resident()
    print(f"{options.requests} {name}: {seconds:.0f} s, {size:.1f} -> {now:.1f} MiB resident "
          f"({100 * (now / size - 1):+.1f} %)", flush=True)
