"""The floors: what a short program without any promise does with boto3 and requests. `python -m tests.bench.floor URL [--batched]`.

Nothing is on disk, nothing is logged, nothing is checked; a crash loses everything. Eight threads, each with a session of its own, call
targets. The first floor sends each answer as it comes; the second collects answers for up to 20 ms, ten at a time.
"""

from __future__ import annotations

import gzip
import json
import queue
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import requests
from botocore.config import Config

from tests.bench.places import AGENT_ID, INBOUND, OUTBOUND, REGION

POOL = 8
BATCH = 10
LINGER_SECONDS = 0.02
EMBEDDED_BYTES = 200_000
BATCH_BYTES = 256_000
_local = threading.local()


def main() -> None:
    """Receive, hand to the pool, delete; until SIGTERM."""
    url, batched = sys.argv[1], "--batched" in sys.argv
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    sqs: Any = boto3.client(
        "sqs",
        region_name=REGION,
        endpoint_url=url,
        aws_access_key_id="AKIABENCH",
        aws_secret_access_key="bench",
        config=Config(max_pool_connections=POOL + 2),
    )
    inbound, outbound = (f"{url}/000000000000/{name}" for name in (INBOUND, OUTBOUND))
    answers: queue.SimpleQueue[str] = queue.SimpleQueue()
    if batched:
        send = answers.put
        threading.Thread(target=_send_batches, args=(sqs, outbound, answers), daemon=True).start()
    else:

        def send(text: str) -> None:
            sqs.send_message(QueueUrl=outbound, MessageBody=text)

    threading.Thread(target=_receive, args=(sqs, inbound, send), daemon=True).start()
    stop.wait()


def _receive(sqs: Any, inbound: str, send: Any) -> None:
    with ThreadPoolExecutor(POOL) as pool:
        while True:
            found = sqs.receive_message(QueueUrl=inbound, MaxNumberOfMessages=BATCH, WaitTimeSeconds=20).get("Messages", [])
            for message in found:
                pool.submit(_run, message["Body"], send)
            if found:
                entries = [{"Id": str(place), "ReceiptHandle": message["ReceiptHandle"]} for place, message in enumerate(found)]
                sqs.delete_message_batch(QueueUrl=inbound, Entries=entries)


def _run(text: str, send: Any) -> None:
    try:
        send(_answer(json.loads(text)))
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)


def _answer(command: dict[str, Any]) -> str:
    """Call the target; return the status update."""
    session = _session()
    request = command["body"]
    if command["bodyDelivery"] == "referenced":
        request = session.get(command["bodyUrl"], timeout=60).json()
    body = request.get("body")
    response = session.request(request.get("method", "GET"), request["url"], data=body and body["raw"].encode(), timeout=60)
    update = {
        "commandId": command["commandId"],
        "targetId": AGENT_ID,
        "status": "SUCCESS" if response.status_code < 400 else "FAILURE",
        "body": {
            "statusCode": response.status_code,
            "headers": [{name: value} for name, value in response.headers.items()],
            "body": response.text,
        },
        "responseBodyDelivery": "embedded",
        "createdAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    if len(response.content) > EMBEDDED_BYTES:
        packed = gzip.compress(json.dumps(update["body"]).encode(), 1)
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        session.put(command["responseBodyUploadUrl"], data=packed, headers=headers, timeout=60).raise_for_status()
        update |= {"body": None, "responseBodyDelivery": "referenced"}
    return json.dumps(update)


def _session() -> requests.Session:
    if not hasattr(_local, "session"):
        _local.session = requests.Session()
    return _local.session  # type: ignore[no-any-return]


def _send_batches(sqs: Any, outbound: str, answers: queue.SimpleQueue[str]) -> None:
    kept: list[str] = []
    while True:
        batch, kept = kept or [answers.get()], []
        size = len(batch[0])
        deadline = time.monotonic() + LINGER_SECONDS
        while len(batch) < BATCH:
            try:
                text = answers.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if size + len(text) > BATCH_BYTES:
                kept = [text]
                break
            batch.append(text)
            size += len(text)
        entries = [{"Id": str(place), "MessageBody": text} for place, text in enumerate(batch)]
        sqs.send_message_batch(QueueUrl=outbound, Entries=entries)


if __name__ == "__main__":
    main()
