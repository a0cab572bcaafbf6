//! `file`: records as files in a folder for each stream: JSON lines and Avro object containers by kind, captions as WebVTT, pictures as
//! JPEG with a contact sheet of them.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::webvtt;
use crate::codec::{Codec, ObjectContainer};
use crate::config::shape::{Default, Field, Type};
use crate::media;
use crate::packet::{Packet, Payload, PayloadKind, Picture, Span, Stream};
use crate::stage::{Build, Context, Holds, Sink, StageKind};
use crate::{Error, Result};

/// The kind.
pub const KIND: StageKind = StageKind {
    name: "file",
    doc: "Records as files, in a folder for each stream: JSON lines and Avro object containers by kind, captions as WebVTT, pictures as JPEG.",
    accepts: &PayloadKind::ALL,
    emits: &[],
    params: &[
        Field {
            name: "path",
            ty: Type::Text,
            default: Default::Is("./out"),
            doc: "The folder; each stream gets one of its own inside. What an earlier run left there under the same stream id is replaced.",
        },
        Field {
            name: "formats",
            ty: Type::List(&Type::Choice(&["jsonl", "avro", "vtt", "jpeg", "contact_sheet"])),
            default: Default::Is("[jsonl, avro, vtt, jpeg]"),
            doc: "What is written: `jsonl` and `avro` for every kind, `vtt` for captions, `jpeg` for pictures, `contact_sheet` for one JPEG of them all.",
        },
        Field { name: "sheet_columns", ty: Type::Int(1, 64), default: Default::Is("8"), doc: "Pictures in a row of the contact sheet." },
        Field { name: "sheet_pictures", ty: Type::Int(1, 10_000), default: Default::Is("200"), doc: "Most pictures on the contact sheet." },
    ],
    holds: Holds::nothing,
    build: Build::Sink(build),
};

fn build(context: &Context<'_>) -> Result<Arc<dyn Sink>> {
    let params = context.params;
    let formats: Vec<_> = params.list("formats").iter().filter_map(|format| format.as_text()).cloned().collect();
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
    Ok(Arc::new(Folder { settings: Arc::new(settings), streams: Mutex::default() }))
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

struct Folder {
    settings: Arc<Settings>,
    streams: Mutex<HashMap<Arc<str>, Arc<Mutex<Files>>>>,
}

/// The open files of one stream.
struct Files {
    settings: Arc<Settings>,
    folder: PathBuf,
    session: Arc<str>,
    lines: HashMap<String, BufWriter<File>>,
    containers: HashMap<PayloadKind, ObjectContainer<BufWriter<File>>>,
    captions: Option<BufWriter<File>>,
    sheet: Vec<(Span, Bytes)>,
}

#[async_trait]
impl Sink for Folder {
    async fn deliver(&self, batch: &[Packet]) -> Vec<Result<()>> {
        let Some(first) = batch.first() else { return Vec::new() };
        let files = self.files(&first.head.channel.stream);
        let count = batch.len();
        let records: Vec<Copy> = batch.iter().map(Copy::of).collect();
        let written = tokio::task::spawn_blocking(move || files.lock().write_all(&records)).await;
        written.unwrap_or_else(|error| vec![Err(Error::bug(format!("writing ended: {error}"))); count])
    }

    fn destination(&self, kind: PayloadKind) -> String {
        format!("{}/{}", self.settings.root.display(), kind.plural())
    }

    async fn finish(&self, stream: &Arc<Stream>) -> Result<()> {
        let Some(files) = self.streams.lock().remove(&stream.id) else { return Ok(()) };
        let finished = tokio::task::spawn_blocking(move || files.lock().finish()).await;
        finished.map_err(|error| Error::bug(format!("writing ended: {error}")))?
    }
}

/// A packet without its hold, to be taken to a thread that may block.
struct Copy(Packet);

impl Copy {
    fn of(packet: &Packet) -> Self {
        let (head, payload) = (Arc::clone(&packet.head), packet.payload.clone());
        Self(Packet { head, payload, receipt: crate::packet::Receipt::none() })
    }
}

impl Folder {
    fn files(&self, stream: &Arc<Stream>) -> Arc<Mutex<Files>> {
        let make = || {
            Arc::new(Mutex::new(Files {
                settings: Arc::clone(&self.settings),
                folder: self.settings.root.join(file_name(&stream.id)),
                session: Arc::clone(&stream.session),
                lines: HashMap::new(),
                containers: HashMap::new(),
                captions: None,
                sheet: Vec::new(),
            }))
        };
        Arc::clone(self.streams.lock().entry(Arc::clone(&stream.id)).or_insert_with(make))
    }
}

impl Files {
    fn write_all(&mut self, records: &[Copy]) -> Vec<Result<()>> {
        let mut outcomes: Vec<Result<()>> = records.iter().map(|record| self.write(&record.0)).collect();
        // A record counts as delivered when it has left our buffers.
        if let Err(error) = self.flush() {
            outcomes.iter_mut().filter(|outcome| outcome.is_ok()).for_each(|outcome| *outcome = Err(error.clone()));
        }
        outcomes
    }

    fn write(&mut self, packet: &Packet) -> Result<()> {
        let kind = packet.payload.kind();
        if self.settings.jsonl {
            let name = match &packet.payload {
                Payload::DeadLetter(letter) => format!("{}.dlq.jsonl", letter.record.plural()),
                _ => format!("{}.jsonl", kind.plural()),
            };
            let mut line = Codec::json().encode(packet);
            line.push(b'\n');
            let (folder, path) = (self.folder.clone(), self.folder.join(&name));
            let file = open_once(&mut self.lines, name, || create(&folder, &path))?;
            file.write_all(&line).map_err(|error| unwritable(&path, error))?;
        }
        if self.settings.avro {
            let path = self.folder.join(format!("{}.avro", kind.plural()));
            let folder = self.folder.clone();
            open_once(&mut self.containers, kind, || ObjectContainer::new(kind, create(&folder, &path)?))?.append(packet)?;
        }
        match &packet.payload {
            Payload::Caption(caption) if self.settings.vtt => {
                let path = self.folder.join("captions.vtt");
                if self.captions.is_none() {
                    let mut file = create(&self.folder, &path)?;
                    file.write_all(webvtt::HEADER.as_bytes()).map_err(|error| unwritable(&path, error))?;
                    self.captions = Some(file);
                }
                if let Some(file) = &mut self.captions {
                    file.write_all(webvtt::cue(packet.head.span, caption).as_bytes()).map_err(|error| unwritable(&path, error))?;
                }
            }
            Payload::Picture(picture) => self.picture(packet, picture)?,
            _ => {}
        }
        Ok(())
    }

    fn picture(&mut self, packet: &Packet, picture: &Picture) -> Result<()> {
        let jpeg = picture.media_type == "image/jpeg";
        if self.settings.jpeg && jpeg {
            let folder = self.folder.join("pictures");
            fs::create_dir_all(&folder).map_err(|error| unwritable(&folder, error))?;
            let millis = packet.head.span.start / 1_000_000;
            let path = folder.join(format!("{}-{}-{:08}.jpg", packet.head.epoch, file_name(&picture.role), millis));
            fs::write(&path, &picture.data).map_err(|error| unwritable(&path, error))?;
        }
        if self.settings.sheet && jpeg && self.sheet.len() < self.settings.pictures {
            self.sheet.push((packet.head.span, picture.data.clone()));
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let folder = self.folder.clone();
        for file in self.lines.values_mut().chain(&mut self.captions) {
            file.flush().map_err(|error| unwritable(&folder, error))?;
        }
        self.containers.values_mut().try_for_each(ObjectContainer::flush)
    }

    /// Makes everything durable, and the contact sheet.
    fn finish(&mut self) -> Result<()> {
        self.flush()?;
        let folder = self.folder.clone();
        let lines = self.lines.values().chain(&self.captions).map(BufWriter::get_ref);
        for file in lines.chain(self.containers.values().map(|container| container.writer().get_ref())) {
            file.sync_all().map_err(|error| unwritable(&folder, error))?;
        }
        if !self.sheet.is_empty() {
            self.sheet.sort_by_key(|(span, _)| *span);
            let pictures: Vec<Bytes> = self.sheet.drain(..).map(|(_, data)| data).collect();
            let sheet = media::contact_sheet(&pictures, self.settings.columns, (240, 135))?;
            let path = folder.join("contact_sheet.jpg");
            fs::write(&path, sheet).map_err(|error| unwritable(&path, error))?;
        }
        tracing::info!(folder = %folder.display(), session = %self.session, "files are complete");
        Ok(())
    }
}

fn open_once<K: std::hash::Hash + Eq, F>(files: &mut HashMap<K, F>, key: K, open: impl FnOnce() -> Result<F>) -> Result<&mut F> {
    match files.entry(key) {
        std::collections::hash_map::Entry::Occupied(file) => Ok(file.into_mut()),
        std::collections::hash_map::Entry::Vacant(place) => Ok(place.insert(open()?)),
    }
}

fn create(folder: &Path, path: &Path) -> Result<BufWriter<File>> {
    fs::create_dir_all(folder).map_err(|error| unwritable(folder, error))?;
    File::create(path).map(BufWriter::new).map_err(|error| unwritable(path, error))
}

fn unwritable(path: &Path, error: std::io::Error) -> Error {
    Error::external(format!("cannot write {}", path.display())).because(error).hint("free some space or name another folder")
}

/// A name that stays one component of a path.
fn file_name(name: &str) -> String {
    let safe: String = name.chars().map(|c| if c.is_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' }).collect();
    if safe.trim_matches('.').is_empty() { format!("_{safe}") } else { safe }
}

#[cfg(test)]
mod tests {
    use super::file_name;

    #[test]
    fn stream_ids_cannot_leave_the_folder() {
        assert_eq!(file_name("../../etc/passwd"), "..-..-etc-passwd");
        assert_eq!(file_name(".."), "_..");
        assert_eq!(file_name("cam 1"), "cam-1");
    }
}
