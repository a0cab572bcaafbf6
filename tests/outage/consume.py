#!/usr/bin/env python3
"""Reads topics from their beginning with confluent-kafka and prints each record as a line of JSON: topic, partition, offset, key, value.

    consume.py BROKERS TOPIC... [--registry URL] [--follow]

Values are JSON, or with --registry Avro in Confluent's wire format, decoded by Confluent's own deserializer. It ends when everything that is
there has been read; with --follow it reads on until it is killed.
"""

import argparse
import json
import time
import uuid

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("brokers")
parser.add_argument("topics", nargs="+")
parser.add_argument("--registry")
parser.add_argument("--follow", action="store_true")
arguments = parser.parse_args()

consumer = Consumer({"bootstrap.servers": arguments.brokers, "group.id": f"test-{uuid.uuid4()}", "enable.auto.commit": False,
                     "auto.offset.reset": "earliest", "topic.metadata.refresh.interval.ms": 1000})
avro = AvroDeserializer(SchemaRegistryClient({"url": arguments.registry})) if arguments.registry else None


def decoded(message):
    if avro:
        return avro(message.value(), SerializationContext(message.topic(), MessageField.VALUE))
    return json.loads(message.value())


def show(message):
    record = {"topic": message.topic(), "partition": message.partition(), "offset": message.offset(),
              "key": message.key().decode(), "value": decoded(message)}
    print(json.dumps(record, default=lambda value: value.hex() if isinstance(value, bytes) else str(value)), flush=True)


def partitions():
    """All partitions of the topics, as soon as all topics are there."""
    while True:
        known = consumer.list_topics(timeout=30).topics
        if all(topic in known and known[topic].partitions for topic in arguments.topics):
            return [TopicPartition(topic, number, 0) for topic in arguments.topics for number in known[topic].partitions]
        time.sleep(0.2)


def end(place):
    """Where a partition ends now. The leader of one just made may not know it yet."""
    while True:
        try:
            return consumer.get_watermark_offsets(place, timeout=30)[1]
        except KafkaException as error:
            if error.args[0].code() not in (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE):
                raise
        time.sleep(0.2)


places = partitions()
consumer.assign(places)
# One that is empty is done.
ends = {(place.topic, place.partition): end(place) for place in places}
waiting = {place for place, end in ends.items() if end > 0}
while waiting or arguments.follow:
    message = consumer.poll(1.0)
    if message is None:
        continue
    if message.error():
        if message.error().code() == KafkaError._PARTITION_EOF or message.error().retriable():
            continue
        raise SystemExit(f"consume: {message.error()}")
    show(message)
    if message.offset() + 1 >= ends[message.topic(), message.partition()]:
        waiting.discard((message.topic(), message.partition()))
consumer.close()
