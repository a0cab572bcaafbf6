// Reads Avro records from Kafka with Apache Kafka's own Java client and Apicurio's deserializer, for the tests:
//
//   java -cp "$OPUSFLOW_JAVA_CLASSPATH" ops/services/ReadAvro.java BROKERS REGISTRY COUNT TOPIC...
//
// REGISTRY is the address that ends in /apis/ccompat/v7 (Confluent's API): the records carry the ids that it gave out. One JSON object a
// record goes to standard output: topic, partition, offset, timestamp, key, headers (text), schema (full name) and value.

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.UUID;
import org.apache.avro.generic.GenericRecord;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.util.RawValue;

public class ReadAvro {
  private static final long PATIENCE_MS = 60_000;

  public static void main(String[] arguments) throws Exception {
    String registry = arguments[1].replaceFirst("/apis/.*$", "") + "/apis/registry/v3";
    int count = Integer.parseInt(arguments[2]);
    List<String> topics = Arrays.asList(arguments).subList(3, arguments.length);

    Properties properties = new Properties();
    properties.put("bootstrap.servers", arguments[0]);
    properties.put("group.id", "read-avro-" + UUID.randomUUID());
    properties.put("auto.offset.reset", "earliest");
    properties.put("enable.auto.commit", "false");
    properties.put("key.deserializer", "org.apache.kafka.common.serialization.StringDeserializer");
    properties.put("value.deserializer", "io.apicurio.registry.serde.avro.AvroKafkaDeserializer");
    properties.put("apicurio.registry.url", registry);
    // Confluent's wire format: a zero byte and the content's id in four bytes, nothing in the headers.
    properties.put("apicurio.registry.headers.enabled", "false");
    properties.put("apicurio.registry.id-handler", "io.apicurio.registry.serde.Default4ByteIdHandler");
    properties.put("apicurio.registry.use-id", "contentId");

    ObjectMapper json = new ObjectMapper();
    int read = 0;
    long deadline = System.currentTimeMillis() + PATIENCE_MS;
    try (KafkaConsumer<String, GenericRecord> consumer = new KafkaConsumer<>(properties)) {
      consumer.subscribe(topics);
      while (read < count && System.currentTimeMillis() < deadline) {
        for (ConsumerRecord<String, GenericRecord> record : consumer.poll(Duration.ofMillis(500))) {
          Map<String, String> headers = new LinkedHashMap<>();
          record.headers().forEach(h -> headers.put(h.key(), new String(h.value(), StandardCharsets.UTF_8)));
          Map<String, Object> line = new LinkedHashMap<>();
          line.put("topic", record.topic());
          line.put("partition", record.partition());
          line.put("offset", record.offset());
          line.put("timestamp", record.timestamp());
          line.put("key", record.key());
          line.put("headers", headers);
          line.put("schema", record.value().getSchema().getFullName());
          line.put("value", new RawValue(record.value().toString()));
          System.out.println(json.writeValueAsString(line));
          read++;
        }
      }
    }
    System.exit(read < count ? 1 : 0);
  }
}
