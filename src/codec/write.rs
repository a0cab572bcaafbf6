//! The two notations of a record: Avro's binary encoding and JSON. Both take the same calls in the
//! order of the schema's fields, so that a record is described once and nothing is built in
//! between.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Where a record is written. Fields come in the order of the schema, each as `field` and then one
/// value.
pub(super) trait Writer {
    /// The name of the value that follows.
    fn field(&mut self, name: &str);
    /// A record begins.
    fn open(&mut self);
    /// The record is complete.
    fn close(&mut self);
    /// The null of a nullable value.
    fn null(&mut self);
    /// The mark that the nullable value which follows is there.
    fn some(&mut self);
    /// An `int`, a `long` or a time.
    fn long(&mut self, value: i64);
    /// A `float`.
    fn float(&mut self, value: f32);
    /// A `boolean`.
    fn boolean(&mut self, value: bool);
    /// A `string`.
    fn text(&mut self, value: &str);
    /// A `bytes`.
    fn bytes(&mut self, value: &[u8]);
    /// A symbol of an enum, at `index` of the schema's symbols.
    fn symbol(&mut self, index: usize, word: &str);
    /// An array of `len` items begins; each item is announced by `item`.
    fn open_array(&mut self, len: usize);
    /// An item follows.
    fn item(&mut self);
    /// The array of `len` items is complete.
    fn close_array(&mut self, len: usize);
    /// A map of `len` entries begins; each entry is announced by `entry`.
    fn open_map(&mut self, len: usize);
    /// A value follows under `key`.
    fn entry(&mut self, key: &str);
    /// The map of `len` entries is complete.
    fn close_map(&mut self, len: usize);

    /// An unsigned number as a `long`; what a long cannot hold becomes its greatest value.
    fn unsigned(&mut self, value: u64) {
        self.long(i64::try_from(value).unwrap_or(i64::MAX));
    }

    /// An unsigned number as an `int`; what an int cannot hold becomes its greatest value.
    fn small(&mut self, value: u32) {
        self.long(i64::from(i32::try_from(value).unwrap_or(i32::MAX)));
    }
}

/// Avro's binary encoding (Avro 1.12 specification, "Binary encoding").
pub(super) struct AvroWriter<'a>(&'a mut Vec<u8>);

impl<'a> AvroWriter<'a> {
    /// Appends to `out`.
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        Self(out)
    }

    fn blocks_begin(&mut self, len: usize) {
        if len > 0 {
            self.long(len as i64);
        }
    }

    fn blocks_end(&mut self) {
        self.0.push(0);
    }
}

impl Writer for AvroWriter<'_> {
    fn field(&mut self, _name: &str) {}

    fn open(&mut self) {}

    fn close(&mut self) {}

    fn null(&mut self) {
        self.long(0);
    }

    fn some(&mut self) {
        self.long(1);
    }

    fn long(&mut self, value: i64) {
        let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
        while zigzag >= 0x80 {
            self.0.push(zigzag as u8 | 0x80);
            zigzag >>= 7;
        }
        self.0.push(zigzag as u8);
    }

    fn float(&mut self, value: f32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn boolean(&mut self, value: bool) {
        self.0.push(u8::from(value));
    }

    fn text(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    fn bytes(&mut self, value: &[u8]) {
        self.long(value.len() as i64);
        self.0.extend_from_slice(value);
    }

    fn symbol(&mut self, index: usize, _word: &str) {
        self.long(index as i64);
    }

    fn open_array(&mut self, len: usize) {
        self.blocks_begin(len);
    }

    fn item(&mut self) {}

    fn close_array(&mut self, _len: usize) {
        self.blocks_end();
    }

    fn open_map(&mut self, len: usize) {
        self.blocks_begin(len);
    }

    fn entry(&mut self, key: &str) {
        self.text(key);
    }

    fn close_map(&mut self, _len: usize) {
        self.blocks_end();
    }
}

/// Plain JSON: records and maps as objects, nulls plain, enums as strings, bytes as base64, times
/// as microseconds.
pub(super) struct JsonWriter<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> JsonWriter<'a> {
    /// Appends to `out`.
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, first: true }
    }

    fn begin(&mut self, bracket: u8) {
        self.out.push(bracket);
        self.first = true;
    }

    fn end(&mut self, bracket: u8) {
        self.out.push(bracket);
        self.first = false;
    }

    fn value(&mut self, value: impl serde::Serialize) {
        serde_json::to_writer(&mut *self.out, &value)
            .expect("strings and numbers always serialize, and a Vec takes every byte");
    }
}

impl Writer for JsonWriter<'_> {
    fn field(&mut self, name: &str) {
        self.entry(name);
    }

    fn open(&mut self) {
        self.begin(b'{');
    }

    fn close(&mut self) {
        self.end(b'}');
    }

    fn null(&mut self) {
        self.out.extend_from_slice(b"null");
    }

    fn some(&mut self) {}

    fn long(&mut self, value: i64) {
        self.value(value);
    }

    fn float(&mut self, value: f32) {
        self.value(value);
    }

    fn boolean(&mut self, value: bool) {
        self.value(value);
    }

    fn text(&mut self, value: &str) {
        self.value(value);
    }

    fn bytes(&mut self, value: &[u8]) {
        let start = self.out.len() + 1;
        let len = value.len().div_ceil(3) * 4;
        self.out.resize(start + len, b'"');
        STANDARD
            .encode_slice(value, &mut self.out[start..])
            .expect("the room was made for it");
        self.out.push(b'"');
    }

    fn symbol(&mut self, _index: usize, word: &str) {
        self.value(word);
    }

    fn open_array(&mut self, _len: usize) {
        self.begin(b'[');
    }

    fn item(&mut self) {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
    }

    fn close_array(&mut self, _len: usize) {
        self.end(b']');
    }

    fn open_map(&mut self, _len: usize) {
        self.begin(b'{');
    }

    fn entry(&mut self, key: &str) {
        self.item();
        self.value(key);
        self.out.push(b':');
    }

    fn close_map(&mut self, _len: usize) {
        self.end(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longs_are_zigzag_varints() {
        // The first rows are the table in the Avro specification.
        let table: [(i64, &[u8]); 6] = [
            (0, &[0]),
            (-1, &[1]),
            (1, &[2]),
            (-64, &[0x7f]),
            (64, &[0x80, 0x01]),
            (i64::MIN, &[0xff; 10]),
        ];
        for (value, expected) in table {
            let mut out = Vec::new();
            AvroWriter::new(&mut out).long(value);
            let expected = if value == i64::MIN {
                &[&[0xff; 9][..], &[1]].concat()[..]
            } else {
                expected
            };
            assert_eq!(out, expected, "{value}");
        }
    }

    #[test]
    fn json_escapes_and_separates() {
        let mut out = Vec::new();
        let mut json = JsonWriter::new(&mut out);
        json.open();
        json.field("quote");
        json.text("a \"b\"\n");
        json.field("items");
        json.open_array(2);
        for number in [1.5, f32::NAN] {
            json.item();
            json.float(number);
        }
        json.close_array(2);
        json.field("data");
        json.bytes(&[0, 255, 1, 2]);
        json.field("map");
        json.open_map(0);
        json.close_map(0);
        json.close();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"quote":"a \"b\"\n","items":[1.5,null],"data":"AP8BAg==","map":{}}"#
        );
    }
}
