import java.io.BufferedInputStream;
import java.io.DataInputStream;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;

import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Sends the messages of a file to Kafka as fast as it takes them: the loop of kafka-producer-perf-test (send with a callback, flush at the
 * end), with the keys, headers and timestamps that it does not send.
 *
 *   java -cp JARS Produce.java BROKERS TOPIC FILE WARM RECORDS LABEL RUN [PROPERTY=VALUE...]
 */
public class Produce {
    record Message(long timestamp, byte[] key, byte[] value, List<Header> headers) {}

    static byte[] bytes(DataInputStream in) throws IOException {
        return in.readNBytes(in.readInt());
    }

    static List<Message> read(Path path) throws IOException {
        try (var in = new DataInputStream(new BufferedInputStream(Files.newInputStream(path)))) {
            var messages = new ArrayList<Message>();
            for (int left = in.readInt(); left > 0; left--) {
                long timestamp = in.readLong();
                byte[] key = bytes(in), value = bytes(in);
                var headers = new ArrayList<Header>();
                for (int more = in.readInt(); more > 0; more--) {
                    headers.add(new RecordHeader(new String(bytes(in), "UTF-8"), bytes(in)));
                }
                messages.add(new Message(timestamp, key, value, headers));
            }
            return messages;
        }
    }

    /** Seconds from the first message to the last acknowledgement. */
    static double send(KafkaProducer<byte[], byte[]> producer, String topic, List<Message> messages, int count) {
        var acknowledged = new AtomicLong();
        long began = System.nanoTime();
        for (int n = 0; n < count; n++) {
            var message = messages.get(n % messages.size());
            var record = new ProducerRecord<>(topic, null, message.timestamp, message.key, message.value, message.headers);
            producer.send(record, (metadata, error) -> {
                if (error == null) acknowledged.incrementAndGet();
            });
        }
        producer.flush();
        double seconds = (System.nanoTime() - began) / 1e9;
        if (acknowledged.get() != count) throw new IllegalStateException("only " + acknowledged + " of " + count + " acknowledged");
        return seconds;
    }

    public static void main(String[] args) throws Exception {
        String topic = args[1];
        int warm = Integer.parseInt(args[3]), count = Integer.parseInt(args[4]);
        var messages = read(Path.of(args[2]));
        var settings = new Properties();
        settings.put("bootstrap.servers", args[0]);
        for (int n = 7; n < args.length; n++) {
            settings.put(args[n].split("=", 2)[0], args[n].split("=", 2)[1]);
        }
        try (var admin = Admin.create(Map.of("bootstrap.servers", args[0]));
             var producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            admin.createTopics(List.of(new NewTopic(topic, 4, (short) 1))).all().get();
            send(producer, topic, messages, warm);
            double rate = count / send(producer, topic, messages, count);
            System.out.printf(Locale.ROOT, "{\"bench\":\"kafka\",\"variant\":\"%s\",\"run\":%s,\"value\":%f,\"unit\":\"records/s\"}%n", args[5], args[6], rate);
            admin.deleteTopics(List.of(topic)).all().get();
        }
    }
}
