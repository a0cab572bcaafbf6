//! Records in files that several of them share: JSON lines, Avro object containers and WebVTT, by
//! kind.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use super::paths::{create, unwritable};
use super::text_file::TextFile;
use super::webvtt;
use crate::codec::{Codec, ObjectContainer};
use crate::packet::{Packet, Payload, PayloadKind};
use crate::{Error, Result};

/// Which files are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordFormats {
    pub jsonl: bool,
    pub avro: bool,
    pub vtt: bool,
}

impl RecordFormats {
    /// The files that a record belongs into.
    fn names(self, payload: &Payload) -> impl Iterator<Item = Name> + use<> {
        let kind = payload.kind();
        let lines = match payload {
            Payload::DeadLetter(letter) => Name::Letters(letter.record),
            _ => Name::Lines(kind),
        };
        // Of several captions of one span a player can show one.
        let shown = matches!(payload, Payload::Transcript(_))
            || matches!(payload, Payload::Caption(caption) if caption.variant == 0);
        let cues = self.vtt && shown;
        let names = [
            self.jsonl.then_some(lines),
            self.avro.then_some(Name::Container(kind)),
            cues.then_some(Name::Cues(kind)),
        ];
        names.into_iter().flatten()
    }
}

/// A file that several records share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Name {
    Lines(PayloadKind),
    Letters(PayloadKind),
    Container(PayloadKind),
    Cues(PayloadKind),
}

enum Open {
    Text(TextFile),
    Container(ObjectContainer<BufWriter<File>>),
}

impl Name {
    fn file(self) -> String {
        match self {
            Name::Lines(kind) => format!("{}.jsonl", kind.plural()),
            Name::Letters(kind) => format!("{}.dlq.jsonl", kind.plural()),
            Name::Container(kind) => format!("{}.avro", kind.plural()),
            Name::Cues(kind) => format!("{}.vtt", kind.plural()),
        }
    }
}

impl Open {
    fn flush(&mut self) -> Result<()> {
        match self {
            Open::Text(file) => file.flush(),
            Open::Container(container) => container.flush(),
        }
    }

    fn sync(&self, path: &Path) -> Result<()> {
        match self {
            Open::Text(file) => file.sync(),
            Open::Container(container) => container
                .writer()
                .get_ref()
                .sync_all()
                .map_err(|error| unwritable(path, error)),
        }
    }
}

/// The open files of one stream, in its folder.
pub(super) struct RecordFiles {
    folder: PathBuf,
    formats: RecordFormats,
    open: HashMap<Name, Open>,
}

impl RecordFiles {
    /// Makes no file before there is a record for it.
    pub fn new(folder: PathBuf, formats: RecordFormats) -> Self {
        Self {
            folder,
            formats,
            open: HashMap::new(),
        }
    }

    /// Adds a record to the present batch of each file that it belongs into.
    ///
    /// # Errors
    /// External where such a file cannot be written.
    pub fn append(&mut self, packet: &Packet) -> Result<()> {
        for name in self.formats.names(&packet.payload) {
            match self.opened(name)? {
                Open::Container(container) => container.append(packet)?,
                Open::Text(file) => file.append(&text(name, packet))?,
            }
        }
        Ok(())
    }

    fn opened(&mut self, name: Name) -> Result<&mut Open> {
        match self.open.entry(name) {
            Entry::Occupied(file) => Ok(file.into_mut()),
            Entry::Vacant(place) => {
                let path = self.folder.join(name.file());
                let file = match name {
                    Name::Container(kind) => Open::Container(ObjectContainer::begin(
                        kind,
                        BufWriter::new(create(&path)?),
                    )?),
                    Name::Cues(_) => Open::Text(TextFile::create(path, webvtt::HEADER)?),
                    Name::Lines(_) | Name::Letters(_) => Open::Text(TextFile::create(path, "")?),
                };
                Ok(place.insert(file))
            }
        }
    }

    /// Ends the batch of every file.
    pub fn flush(&mut self) -> Flushed {
        let failed = self
            .open
            .iter_mut()
            .filter_map(|(name, file)| Some((*name, file.flush().err()?)));
        Flushed {
            formats: self.formats,
            failed: failed.collect(),
        }
    }

    /// Makes everything durable. A file that fails keeps none of the others from it.
    ///
    /// # Errors
    /// That of one that fails.
    pub fn finish(&mut self) -> Result<()> {
        let mut result = Ok(());
        for (name, file) in &mut self.open {
            let path = self.folder.join(name.file());
            let durable = file.flush().and_then(|()| file.sync(&path));
            result = result.and(durable);
        }
        result
    }
}

/// The files that a batch could not be written to.
pub(super) struct Flushed {
    formats: RecordFormats,
    failed: HashMap<Name, Error>,
}

impl Flushed {
    /// Whether a record of the batch has left our buffers.
    ///
    /// # Errors
    /// That of a file that the record belongs into.
    pub fn outcome(&self, packet: &Packet) -> Result<()> {
        let mut names = self.formats.names(&packet.payload);
        match names.find_map(|name| self.failed.get(&name)) {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }
}

/// A record as a file of text holds it.
fn text(name: Name, packet: &Packet) -> Vec<u8> {
    match (name, &packet.payload) {
        (Name::Cues(_), Payload::Caption(caption)) => {
            webvtt::cue(packet.head.span, &caption.text).into_bytes()
        }
        (Name::Cues(_), Payload::Transcript(transcript)) => {
            webvtt::cue(packet.head.span, &transcript.text).into_bytes()
        }
        _ => {
            let mut line = Codec::json().encode(packet);
            line.push(b'\n');
            line
        }
    }
}
