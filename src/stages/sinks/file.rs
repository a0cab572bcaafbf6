//! `file`: records as files in a folder for each stream: JSON lines and Avro object containers by
//! kind, captions and transcripts as WebVTT, pictures as JPEG with a contact sheet of each role.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::text_file::{TextFile, create, unwritable};
use super::webvtt;
use crate::codec::{Codec, ObjectContainer};
use crate::config::shape::{Default, Field, Type};
use crate::media;
use crate::packet::{Packet, Payload, PayloadKind, Picture, Span, Stream};
use crate::stage::{Build, Context, Joins, Lookahead, Sink, StageKind};
use crate::{Error, Result};

/// The kind.
pub const KIND: StageKind = StageKind {
    name: "file",
    doc: "Records as files, in a folder for each stream: JSON lines and Avro object containers by \
          kind, captions and transcripts as WebVTT, pictures as JPEG.",
    accepts: &PayloadKind::ALL,
    emits: &[],
    params: &[
        Field {
            name: "path",
            ty: Type::Text,
            default: Default::Is("./out"),
            doc: "The folder; each stream gets one of its own inside. What an earlier run left \
                  there under the same stream id is replaced.",
        },
        Field {
            name: "formats",
            ty: Type::List(&Type::Choice(&[
                "jsonl",
                "avro",
                "vtt",
                "jpeg",
                "contact_sheet",
            ])),
            default: Default::Is("[jsonl, avro, vtt, jpeg]"),
            doc: "What is written: `jsonl` and `avro` for every kind, `vtt` for transcripts and \
                  captions (of variants the first), `jpeg` for pictures (PNG and WebP as they \
                  are), `contact_sheet` for one JPEG of all pictures of a role.",
        },
        Field {
            name: "sheet_columns",
            ty: Type::Int(1, 64),
            default: Default::Is("8"),
            doc: "Pictures in a row of a contact sheet.",
        },
        Field {
            name: "sheet_pictures",
            ty: Type::Int(1, 10_000),
            default: Default::Is("200"),
            doc: "Most pictures on a contact sheet.",
        },
    ],
    joins: Joins::AsWritten,
    lookahead: Lookahead::none,
    build: Build::Sink(build),
};

fn build(context: &Context<'_>) -> Result<Arc<dyn Sink>> {
    let params = context.params;
    let formats: Vec<_> = params
        .list("formats")
        .iter()
        .filter_map(|format| format.as_text())
        .cloned()
        .collect();
    let has = |name: &str| formats.iter().any(|format| &**format == name);
    let settings = Settings {
        root: PathBuf::from(&**params.text("path")),
        jsonl: has("jsonl"),
        avro: has("avro"),
        vtt: has("vtt"),
        jpeg: has("jpeg"),
        sheet: has("contact_sheet"),
        columns: u32::try_from(params.int("sheet_columns")).unwrap_or(8),
        pictures: params.int("sheet_pictures").unsigned_abs() as usize,
    };
    Ok(Arc::new(FileSink {
        settings: Arc::new(settings),
        streams: Mutex::default(),
    }))
}

struct Settings {
    root: PathBuf,
    jsonl: bool,
    avro: bool,
    vtt: bool,
    jpeg: bool,
    sheet: bool,
    columns: u32,
    pictures: usize,
}

impl Settings {
    /// The files that a record belongs into, beside one of its own.
    fn names(&self, payload: &Payload) -> impl Iterator<Item = Name> + use<> {
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

struct FileSink {
    settings: Arc<Settings>,
    streams: Mutex<HashMap<Arc<str>, Arc<Mutex<Files>>>>,
}

/// The open files of one stream.
struct Files {
    settings: Arc<Settings>,
    folder: PathBuf,
    session: Arc<str>,
    open: HashMap<Name, Open>,
    /// By role.
    sheets: BTreeMap<String, Vec<(Span, Bytes)>>,
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

    fn sync(&self, path: &std::path::Path) -> Result<()> {
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

#[async_trait]
impl Sink for FileSink {
    async fn deliver(&self, batch: &[Packet]) -> Vec<Result<()>> {
        let Some(first) = batch.first() else {
            return Vec::new();
        };
        let files = self.files(&first.head.channel.stream);
        let count = batch.len();
        let records: Vec<BlockingRecord> = batch.iter().map(BlockingRecord::of).collect();
        let written = tokio::task::spawn_blocking(move || files.lock().write_all(&records)).await;
        written
            .unwrap_or_else(|error| vec![Err(Error::bug(format!("writing ended: {error}"))); count])
    }

    fn destination(&self, kind: PayloadKind) -> String {
        format!("{}/{}", self.settings.root.display(), kind.plural())
    }

    async fn finish(&self, stream: &Arc<Stream>) -> Result<()> {
        let Some(files) = self.streams.lock().remove(&stream.id) else {
            return Ok(());
        };
        let finished = tokio::task::spawn_blocking(move || files.lock().finish()).await;
        finished.map_err(|error| Error::bug(format!("writing ended: {error}")))?
    }
}

/// A packet without its hold, to be taken to a thread that may block.
struct BlockingRecord(Packet);

impl BlockingRecord {
    fn of(packet: &Packet) -> Self {
        let (head, payload) = (Arc::clone(&packet.head), packet.payload.clone());
        Self(Packet {
            head,
            payload,
            receipt: crate::packet::Receipt::none(),
        })
    }
}

impl FileSink {
    fn files(&self, stream: &Arc<Stream>) -> Arc<Mutex<Files>> {
        let make = || {
            Arc::new(Mutex::new(Files {
                settings: Arc::clone(&self.settings),
                folder: self.settings.root.join(file_name(&stream.id)),
                session: Arc::clone(&stream.session),
                open: HashMap::new(),
                sheets: BTreeMap::new(),
            }))
        };
        Arc::clone(
            self.streams
                .lock()
                .entry(Arc::clone(&stream.id))
                .or_insert_with(make),
        )
    }
}

impl Files {
    /// Each record's outcome is its own: a file that cannot be written fails those that belong into
    /// it, and no other.
    fn write_all(&mut self, records: &[BlockingRecord]) -> Vec<Result<()>> {
        let outcomes: Vec<Result<()>> =
            records.iter().map(|record| self.write(&record.0)).collect();
        // A record counts as delivered when it has left our buffers.
        let failed: HashMap<Name, Error> = self
            .open
            .iter_mut()
            .filter_map(|(name, file)| Some((*name, file.flush().err()?)))
            .collect();
        let flushed = |record: &BlockingRecord| {
            let error = self
                .settings
                .names(&record.0.payload)
                .find_map(|name| failed.get(&name));
            error.map_or(Ok(()), |error| Err(error.clone()))
        };
        outcomes
            .into_iter()
            .zip(records)
            .map(|(outcome, record)| outcome.and_then(|()| flushed(record)))
            .collect()
    }

    fn write(&mut self, packet: &Packet) -> Result<()> {
        let settings = Arc::clone(&self.settings);
        for name in settings.names(&packet.payload) {
            match self.opened(name)? {
                Open::Container(container) => container.append(packet)?,
                Open::Text(file) => file.append(&text(name, packet))?,
            }
        }
        match &packet.payload {
            Payload::Picture(picture) => self.picture(packet, picture),
            _ => Ok(()),
        }
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

    fn picture(&mut self, packet: &Packet, picture: &Picture) -> Result<()> {
        let extension = match &*picture.media_type {
            "image/jpeg" => "jpg",
            "image/png" => "png",
            "image/webp" => "webp",
            _ => return Ok(()),
        };
        if self.settings.jpeg {
            let folder = self.folder.join("pictures");
            fs::create_dir_all(&folder).map_err(|error| unwritable(&folder, error))?;
            let millis = packet.head.span.start / 1_000_000;
            let path = folder.join(format!(
                "{}-{}-{:08}.{extension}",
                packet.head.epoch,
                file_name(&picture.role),
                millis
            ));
            fs::write(&path, &picture.data).map_err(|error| unwritable(&path, error))?;
        }
        if self.settings.sheet {
            let sheet = self.sheets.entry(file_name(&picture.role)).or_default();
            if sheet.len() < self.settings.pictures {
                sheet.push((packet.head.span, picture.data.clone()));
            }
        }
        Ok(())
    }

    /// Makes everything durable, and the contact sheets. A file that fails keeps none of the others
    /// from it.
    fn finish(&mut self) -> Result<()> {
        let folder = self.folder.clone();
        let durable = |(name, file): (&Name, &mut Open)| {
            file.flush()
                .and_then(|()| file.sync(&folder.join(name.file())))
        };
        let failed = self
            .open
            .iter_mut()
            .map(durable)
            .filter_map(Result::err)
            .reduce(|first, _| first);
        for (role, mut pictures) in std::mem::take(&mut self.sheets) {
            pictures.sort_by_key(|(span, _)| *span);
            let pictures: Vec<Bytes> = pictures.into_iter().map(|(_, data)| data).collect();
            let sheet = media::contact_sheet(&pictures, self.settings.columns, (240, 135))?;
            let path = folder.join(format!("contact_sheet-{role}.jpg"));
            fs::write(&path, sheet).map_err(|error| unwritable(&path, error))?;
        }
        if let Some(error) = failed {
            return Err(error);
        }
        tracing::info!(folder = %folder.display(), session = %self.session, "files are complete");
        Ok(())
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

/// A name that stays one component of a path.
fn file_name(name: &str) -> String {
    let safe: String = name
        .chars()
        .map(|c| {
            if c.is_alphanumeric() || matches!(c, '-' | '_' | '.') {
                c
            } else {
                '-'
            }
        })
        .collect();
    if safe.trim_matches('.').is_empty() {
        format!("_{safe}")
    } else {
        safe
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::samples;

    fn folder(root: &std::path::Path) -> FileSink {
        let root = root.to_owned();
        let settings = Settings {
            root,
            jsonl: true,
            avro: true,
            vtt: true,
            jpeg: false,
            sheet: false,
            columns: 1,
            pictures: 1,
        };
        FileSink {
            settings: Arc::new(settings),
            streams: Mutex::default(),
        }
    }

    /// Whether each was delivered, and the errors.
    async fn deliver(sink: &FileSink, batch: &[PayloadKind]) -> Vec<Result<()>> {
        let packets: Vec<Packet> = batch.iter().map(|kind| samples::packet(*kind)).collect();
        sink.deliver(&packets).await
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_written_fails_only_what_belongs_into_it() {
        use PayloadKind::{Caption, Segment};
        let place = tempfile::tempdir().expect("a folder");
        let stream = place
            .path()
            .join(file_name(&samples::packet(Caption).head.channel.stream.id));
        fs::create_dir_all(&stream).expect("it is writable");
        std::os::unix::fs::symlink("/dev/full", stream.join("captions.vtt"))
            .expect("it is writable");
        let sink = folder(place.path());
        let outcomes = deliver(&sink, &[Caption, Segment, Caption, Segment]).await;
        assert_eq!(
            outcomes.iter().map(Result::is_ok).collect::<Vec<_>>(),
            [false, true, false, true],
            "{outcomes:?}"
        );
        let error = outcomes[0].as_ref().expect_err("the disk is full");
        assert!(
            error.is_transient() && error.message().contains("captions.vtt"),
            "{error}"
        );
        assert!(
            error
                .hint_text()
                .is_some_and(|hint| hint.contains("free some space")),
            "{error}"
        );
        let lines = |name: &str| {
            fs::read_to_string(stream.join(name))
                .expect("it is there")
                .lines()
                .count()
        };
        assert_eq!(lines("segments.jsonl"), 2);

        assert!(
            deliver(&sink, &[Segment]).await[0].is_ok(),
            "the file that is full stays alone in it"
        );
        assert_eq!(lines("segments.jsonl"), 3);
        assert!(
            sink.finish(&samples::packet(Caption).head.channel.stream)
                .await
                .is_err(),
            "a film's end says that a file is not durable"
        );
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_made_is_not_called_a_full_disk() {
        let outcomes = deliver(&folder("/proc/nowhere".as_ref()), &[PayloadKind::Segment]).await;
        let error = outcomes[0]
            .as_ref()
            .expect_err("nothing can be made there")
            .to_string();
        assert!(
            error.contains("cannot write /proc/nowhere") && !error.contains("space"),
            "{error}"
        );
    }

    #[test]
    fn stream_ids_cannot_leave_the_folder() {
        assert_eq!(file_name("../../etc/passwd"), "..-..-etc-passwd");
        assert_eq!(file_name(".."), "_..");
        assert_eq!(file_name("cam 1"), "cam-1");
    }
}
