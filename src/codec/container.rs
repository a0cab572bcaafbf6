//! Avro object container files (Avro 1.12 specification, "Object Container Files"): records of one
//! kind in deflated blocks. A block is written whole, so that after a crash everything up to the
//! last complete block can be read.

use std::io;

use super::encode::body;
use super::schema::schema_text;
use super::write::{AvroWriter, Writer as _};
use crate::error::{Error, Result};
use crate::packet::{Packet, PayloadKind};

/// Bytes of records, before compression, that close a block.
const BLOCK: usize = 64 * 1024;

/// Writes records of one kind into an object container file. What was appended is in the file once
/// `flush` has returned.
pub struct ObjectContainer<W: io::Write> {
    writer: W,
    kind: PayloadKind,
    marker: [u8; 16],
    block: Vec<u8>,
    count: i64,
    broken: bool,
}

impl<W: io::Write> ObjectContainer<W> {
    /// Begins a file of records of `kind` by its header.
    ///
    /// # Errors
    /// An external error, where the writer fails.
    pub fn begin(kind: PayloadKind, mut writer: W) -> Result<Self> {
        let marker = rand::random::<[u8; 16]>();
        let mut header = b"Obj\x01".to_vec();
        let mut out = AvroWriter::new(&mut header);
        out.open_map(2);
        out.entry("avro.codec");
        out.text("deflate");
        out.entry("avro.schema");
        out.text(schema_text(kind));
        out.close_map(2);
        header.extend_from_slice(&marker);
        writer
            .write_all(&header)
            .map_err(|error| failed(kind, error))?;
        Ok(Self {
            writer,
            kind,
            marker,
            block: Vec::new(),
            count: 0,
            broken: false,
        })
    }

    /// Adds the record of `packet`, which is of the file's kind.
    ///
    /// # Errors
    /// A bug where the packet is of another kind; an external error where the writer fails, after
    /// which the file takes no more: what was appended since the last `flush` is not surely in it.
    pub fn append(&mut self, packet: &Packet) -> Result<()> {
        if packet.payload.kind() != self.kind {
            return Err(Error::bug(format!(
                "a {} does not belong into a file of {}",
                packet.payload.kind().as_str(),
                self.kind.plural()
            )));
        }
        self.usable()?;
        body(packet, &mut self.block);
        self.count += 1;
        if self.block.len() >= BLOCK {
            self.close_block()
        } else {
            Ok(())
        }
    }

    /// Closes the open block and hands everything to the writer's own `flush`.
    ///
    /// # Errors
    /// As [`ObjectContainer::append`].
    pub fn flush(&mut self) -> Result<()> {
        self.usable()?;
        self.close_block()?;
        self.writer.flush().map_err(|error| self.break_off(error))
    }

    /// The writer, for example to sync a file to its disk.
    pub fn writer(&self) -> &W {
        &self.writer
    }

    fn close_block(&mut self) -> Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        let mut body = std::mem::take(&mut self.block);
        let deflate = apache_avro::Codec::Deflate(apache_avro::DeflateSettings::default());
        deflate
            .compress(&mut body)
            .map_err(|error| Error::bug("a block of records cannot be deflated").because(error))?;
        let mut framed = Vec::with_capacity(body.len() + 36);
        let mut out = AvroWriter::new(&mut framed);
        out.long(self.count);
        out.bytes(&body);
        framed.extend_from_slice(&self.marker);
        self.count = 0;
        self.writer
            .write_all(&framed)
            .map_err(|error| self.break_off(error))
    }

    fn break_off(&mut self, error: io::Error) -> Error {
        self.broken = true;
        failed(self.kind, error)
    }

    fn usable(&self) -> Result<()> {
        // A block that was written in part would swallow what follows it.
        if self.broken {
            Err(Error::external(format!(
                "the file of {} broke off at an earlier error",
                self.kind.plural()
            )))
        } else {
            Ok(())
        }
    }
}

fn failed(kind: PayloadKind, error: io::Error) -> Error {
    Error::external(format!("cannot write records of {}", kind.plural())).because(error)
}

#[cfg(test)]
mod tests {
    use apache_avro::Reader;

    use super::*;
    use crate::codec::samples;

    fn written(count: usize) -> Vec<u8> {
        let packet = samples::packet(PayloadKind::Caption);
        let mut file = ObjectContainer::begin(PayloadKind::Caption, Vec::new()).unwrap();
        (0..count).for_each(|_| file.append(&packet).unwrap());
        file.flush().unwrap();
        file.writer().clone()
    }

    fn read(file: &[u8]) -> (usize, bool) {
        let mut records = 0;
        for record in Reader::new(file).unwrap() {
            match record {
                Ok(_) => records += 1,
                Err(_) => return (records, false),
            }
        }
        (records, true)
    }

    #[test]
    fn files_are_read_by_another_implementation() {
        assert_eq!(read(&written(0)), (0, true));
        assert_eq!(read(&written(1000)), (1000, true));
    }

    #[test]
    fn a_torn_file_keeps_its_complete_blocks() {
        let whole = written(1000);
        let (records, complete) = read(&whole[..whole.len() - 7]);
        assert!(!complete);
        assert!(
            (100..1000).contains(&records),
            "{records} of 1000 records read"
        );
    }

    #[test]
    fn a_stranger_is_refused() {
        let mut file = ObjectContainer::begin(PayloadKind::Caption, Vec::new()).unwrap();
        assert!(file.append(&samples::packet(PayloadKind::Segment)).is_err());
    }

    #[test]
    fn a_full_disk_breaks_the_file_off() {
        struct Disk(usize);
        impl io::Write for Disk {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let room = self.0.min(bytes.len());
                self.0 -= room;
                if room == 0 {
                    Err(io::Error::other("disk full"))
                } else {
                    Ok(room)
                }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let header = written(0).len();
        let mut file = ObjectContainer::begin(PayloadKind::Caption, Disk(header + 20)).unwrap();
        file.append(&samples::packet(PayloadKind::Caption)).unwrap();
        assert!(file.flush().unwrap_err().to_string().contains("disk full"));
        assert!(
            file.append(&samples::packet(PayloadKind::Caption)).is_err(),
            "nothing follows a torn block"
        );
    }
}
