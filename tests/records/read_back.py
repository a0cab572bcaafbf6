"""Reads back what opusflow wrote, with clients and decoders that nobody here wrote, and prints a JSON object a record.

    read_back.py topics ENCODING BROKERS NAMESPACE [REGISTRY]    every message of the namespace's topics
    read_back.py containers FILE...                              every record of Avro object container files
    read_back.py redis URL PREFIX STREAM                         the hash of latest records and the Redis stream

Values are printed as the project's JSON has them: bytes in base64, times in microseconds since 1970.
"""

import base64
import datetime
import io
import json
import sys
from pathlib import Path

SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def plain(value):
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime.datetime):
        return (value - EPOCH) // datetime.timedelta(microseconds=1)
    return value


def crc(schema):
    """The CRC-64-AVRO fingerprint of a schema as the number's 16 hexadecimal digits; Avro writes it little-endian."""
    import fastavro.schema

    text = fastavro.schema.to_parsing_canonical_form(fastavro.schema.parse_schema(schema))
    little = bytes.fromhex(fastavro.schema.fingerprint(text, "CRC-64-AVRO"))
    return f"{int.from_bytes(little, 'little'):016x}"


def decoder(encoding, registry):
    """A function from topic and bytes to the value and what else is known of its encoding."""
    if encoding == "json":
        return lambda topic, value: (json.loads(value), {})
    if encoding == "avro":
        import fastavro

        known = {}
        for path in SCHEMAS.glob("*.avsc"):
            schema = json.loads(path.read_text())
            known[int(crc(schema), 16).to_bytes(8, "little")] = fastavro.parse_schema(schema)

        def single_object(topic, value):
            assert value[:2] == b"\xc3\x01", f"{topic}: {value[:10]}"
            stream = io.BytesIO(value[10:])
            record = fastavro.schemaless_reader(stream, known[value[2:10]], None)
            assert not stream.read(), f"{topic}: bytes after the record"
            return record, {"fingerprint": value[2:10][::-1].hex()}

        return single_object
    from confluent_kafka.schema_registry import SchemaRegistryClient
    from confluent_kafka.schema_registry.avro import AvroDeserializer
    from confluent_kafka.serialization import MessageField, SerializationContext

    client = SchemaRegistryClient({"url": registry})
    deserialize = AvroDeserializer(client)
    subjects = {}

    def confluent(topic, value):
        assert value[0] == 0, f"{topic}: {value[:5]}"
        number = int.from_bytes(value[1:5], "big")
        if topic not in subjects:
            latest = client.get_latest_version(f"{topic}-value")
            subjects[topic] = (latest.schema_id, crc(json.loads(client.get_schema(number).schema_str)))
        assert subjects[topic][0] == number, f"{topic}: written by {number}, the subject's latest is {subjects[topic][0]}"
        record = deserialize(value, SerializationContext(topic, MessageField.VALUE))
        return record, {"fingerprint": subjects[topic][1]}

    return confluent


def topics(encoding, brokers, namespace, registry=None):
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    decode = decoder(encoding, registry)
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": f"read-back-{namespace}", "enable.auto.commit": False,
                         "check.crcs": True, "enable.partition.eof": False})
    found = consumer.list_topics(timeout=20).topics
    waiting = {}
    for name, topic in sorted(found.items()):
        for partition in topic.partitions if name.startswith(f"{namespace}.") else ():
            low, high = consumer.get_watermark_offsets(TopicPartition(name, partition), timeout=20)
            assert low == 0, f"{name}: records before {low} are gone"
            print(json.dumps({"partition_of": name, "records": high}))
            if high:
                waiting[name, partition] = high
    consumer.assign([TopicPartition(name, partition, OFFSET_BEGINNING) for name, partition in waiting])
    while waiting:
        message = consumer.poll(20)
        assert message is not None, f"no message of {waiting}"
        assert not message.error(), message.error()
        place = message.topic(), message.partition()
        value, known = decode(message.topic(), message.value())
        _, timestamp = message.timestamp()
        print(json.dumps({
            "topic": message.topic(), "key": message.key().decode(), "timestamp": timestamp, "length": len(message.value()),
            "headers": {name: text.decode() for name, text in message.headers()}, "value": plain(value), **known}))
        if place in waiting and message.offset() + 1 >= waiting[place]:
            del waiting[place]
    consumer.close()


def containers(*paths):
    import fastavro

    for path in paths:
        with open(path, "rb") as file:
            reader = fastavro.reader(file)
            name = reader.writer_schema["name"]
            for record in reader:
                print(json.dumps({"file": path, "schema": name, "codec": reader.codec, "value": plain(record)}))


def redis(url, prefix, stream):
    import redis

    client = redis.Redis.from_url(url, decode_responses=True)
    latest, records = f"{prefix}:latest:{stream}", f"{prefix}:records:{stream}"
    print(json.dumps({
        "latest": {kind: json.loads(record) for kind, record in client.hgetall(latest).items()},
        "records": [{"kind": entry["kind"], "record": json.loads(entry["record"])} for _, entry in client.xrange(records)],
        "ttl": [client.ttl(latest), client.ttl(records)]}))


if __name__ == "__main__":
    {"topics": topics, "containers": containers, "redis": redis}[sys.argv[1]](*sys.argv[2:])
