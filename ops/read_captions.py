#!/usr/bin/env python3
"""Reads captions from Kafka as they come, with a client and a decoder that nobody here wrote, and tells how far behind it is.

    .venv/bin/python ops/read_captions.py 127.0.0.1:9092 [--namespace media] [--count N]

A line a caption: its place in the film, its stream, its text, the time from the emitting of the record to here, and the lag (records
still unread). It ends when the broker is gone, as the embedded one is when its pipeline has ended, or after N captions. Records are Avro
single-object encoded (the schemas are those in schemas/) or JSON.
"""

import argparse
import datetime
import io
import json
import statistics
import sys
import time
import uuid
from pathlib import Path

import fastavro
from confluent_kafka import Consumer, KafkaError, TopicPartition
from fastavro.schema import fingerprint, parse_schema, to_parsing_canonical_form

SCHEMAS = Path(__file__).resolve().parent.parent / "schemas"
GONE_AFTER = 5.0


def schemas():
    """Every schema in schemas/ by its little-endian CRC-64-AVRO fingerprint, which is how a single-object record names its own."""
    found, named, waiting = {}, {}, sorted(SCHEMAS.glob("*.avsc"))
    while waiting:
        later = []
        for path in waiting:
            try:
                schema = parse_schema(json.loads(path.read_text()), named_schemas=named)
            except fastavro.schema.UnknownType:
                later.append(path)  # it names a type of another file
                continue
            digest = bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))
            found[digest] = schema
        if len(later) == len(waiting):
            sys.exit(f"{later[0]}: it names a type that no schema defines")
        waiting = later
    return found


def decode(value, known):
    if value[:2] == b"\xc3\x01":
        schema = known.get(value[2:10])
        if schema is None:
            sys.exit(f"schema {value[2:10].hex()} is not in {SCHEMAS}: the records come from another version")
        return fastavro.schemaless_reader(io.BytesIO(value[10:]), schema, None)
    if value[:1] == b"{":
        return json.loads(value)
    sys.exit("the records are in Confluent's wire format: read them with its deserializer and the registry")


def place(nanoseconds):
    minutes, seconds = divmod(nanoseconds / 1e9, 60)
    return f"{int(minutes):02}:{seconds:04.1f}"


def latency(emit_time):
    if isinstance(emit_time, datetime.datetime):
        emit_time = emit_time.timestamp() * 1e6
    return time.time() * 1e3 - emit_time / 1e3


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("brokers")
    parser.add_argument("--namespace", default="media")
    parser.add_argument("--count", type=int, default=0, help="stop after so many captions (default: never)")
    arguments = parser.parse_args()
    known = schemas()
    gone = None
    latencies = []

    def failed(error):
        nonlocal gone
        if error.code() == KafkaError._ALL_BROKERS_DOWN and gone is None:
            gone = time.monotonic()

    consumer = Consumer({
        "bootstrap.servers": arguments.brokers, "group.id": f"captions-{uuid.uuid4()}", "auto.offset.reset": "earliest",
        "enable.auto.commit": False, "topic.metadata.refresh.interval.ms": 1000, "log_level": 0, "error_cb": failed})
    topic = f"{arguments.namespace}.captions.v1"
    consumer.subscribe([topic])
    print(f"waiting for captions on {topic} at {arguments.brokers}", file=sys.stderr)
    try:
        while not arguments.count or len(latencies) < arguments.count:
            message = consumer.poll(0.5)
            if message is None or message.error():
                if gone and time.monotonic() - gone > GONE_AFTER:
                    break
                continue
            gone = None
            record = decode(message.value(), known)
            meta = record["meta"]
            _, end = consumer.get_watermark_offsets(TopicPartition(message.topic(), message.partition()), cached=True)
            lag = max(0, end - message.offset() - 1)
            latencies.append(latency(meta["emit_time"]))
            print(f"{place(meta['start'])}-{place(meta['end'])}  {meta['stream']}  {record['text']}  "
                  f"[{latencies[-1]:.0f} ms, lag {lag}]", flush=True)
    except KeyboardInterrupt:
        pass
    finally:
        consumer.close()
    if latencies:
        print(f"{len(latencies)} captions, emitted to read: median {statistics.median(latencies):.0f} ms, "
              f"worst {max(latencies):.0f} ms", file=sys.stderr)


if __name__ == "__main__":
    main()
