//! `file`: records as files in a folder for each stream: JSON lines and Avro object containers by
//! kind, captions and transcripts as WebVTT, pictures as JPEG with a contact sheet of each role.

mod paths;
mod pictures;
mod records;
mod text_file;
mod webvtt;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use self::paths::file_name;
use self::pictures::{PictureFormats, Pictures};
use self::records::{RecordFiles, RecordFormats};
use crate::config::shape::{Default, Field, Type};
use crate::packet::{Packet, Payload, PayloadKind, Receipt, Stream};
use crate::stage::{Build, Context, Endpoint, Joins, Lookahead, Sink, StageKind};
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
    endpoint: Endpoint::Files,
    lookahead: Lookahead::none,
    build: Build::Sink(build),
};

fn build(context: &Context<'_>) -> Result<Arc<dyn Sink>> {
    let params = context.params;
    let formats = params.list("formats");
    let has = |name: &str| {
        let mut names = formats.iter().filter_map(|format| format.as_text());
        names.any(|format| &**format == name)
    };
    Ok(Arc::new(FileSink {
        root: PathBuf::from(&**params.text("path")),
        records: RecordFormats {
            jsonl: has("jsonl"),
            avro: has("avro"),
            vtt: has("vtt"),
        },
        pictures: PictureFormats {
            files: has("jpeg"),
            sheets: has("contact_sheet"),
            columns: u32::try_from(params.int("sheet_columns")).unwrap_or(8),
            most: params.int("sheet_pictures").unsigned_abs() as usize,
        },
        streams: Mutex::default(),
    }))
}

struct FileSink {
    root: PathBuf,
    records: RecordFormats,
    pictures: PictureFormats,
    streams: Mutex<HashMap<Arc<str>, Arc<Mutex<StreamFolder>>>>,
}

#[async_trait]
impl Sink for FileSink {
    async fn deliver(&self, batch: &[Packet]) -> Vec<Result<()>> {
        let Some(first) = batch.first() else {
            return Vec::new();
        };
        let folder = self.folder(&first.head.channel.stream);
        let count = batch.len();
        let records: Vec<Packet> = batch.iter().map(without_receipt).collect();
        let written = tokio::task::spawn_blocking(move || folder.lock().write_all(&records)).await;
        written
            .unwrap_or_else(|error| vec![Err(Error::bug(format!("writing ended: {error}"))); count])
    }

    fn destination(&self, kind: PayloadKind) -> String {
        format!("{}/{}", self.root.display(), kind.plural())
    }

    async fn finish(&self, stream: &Arc<Stream>) -> Result<()> {
        let Some(folder) = self.streams.lock().remove(&stream.id) else {
            return Ok(());
        };
        let finished = tokio::task::spawn_blocking(move || folder.lock().finish()).await;
        finished.map_err(|error| Error::bug(format!("writing ended: {error}")))?
    }
}

/// A packet to be taken to a thread that may block: the runner keeps its receipt.
fn without_receipt(packet: &Packet) -> Packet {
    Packet {
        head: Arc::clone(&packet.head),
        payload: packet.payload.clone(),
        receipt: Receipt::none(),
    }
}

impl FileSink {
    fn folder(&self, stream: &Arc<Stream>) -> Arc<Mutex<StreamFolder>> {
        let make = || {
            let path = self.root.join(file_name(&stream.id));
            Arc::new(Mutex::new(StreamFolder {
                records: RecordFiles::new(path.clone(), self.records),
                pictures: Pictures::new(path.clone(), self.pictures),
                path,
                session: Arc::clone(&stream.session),
            }))
        };
        let mut streams = self.streams.lock();
        Arc::clone(streams.entry(Arc::clone(&stream.id)).or_insert_with(make))
    }
}

/// What is written of one stream.
struct StreamFolder {
    path: PathBuf,
    session: Arc<str>,
    records: RecordFiles,
    pictures: Pictures,
}

impl StreamFolder {
    /// Each record's outcome is its own: a file that cannot be written fails those that belong into
    /// it, and no other.
    fn write_all(&mut self, packets: &[Packet]) -> Vec<Result<()>> {
        let outcomes: Vec<Result<()>> = packets.iter().map(|packet| self.write(packet)).collect();
        // A record counts as delivered when it has left our buffers.
        let flushed = self.records.flush();
        outcomes
            .into_iter()
            .zip(packets)
            .map(|(outcome, packet)| outcome.and_then(|()| flushed.outcome(packet)))
            .collect()
    }

    fn write(&mut self, packet: &Packet) -> Result<()> {
        self.records.append(packet)?;
        match &packet.payload {
            Payload::Picture(picture) => self.pictures.write(packet, picture),
            _ => Ok(()),
        }
    }

    /// Makes everything durable, and the contact sheets, whichever of them fails.
    fn finish(&mut self) -> Result<()> {
        let durable = self.records.finish();
        self.pictures.finish()?;
        durable?;
        tracing::info!(folder = %self.path.display(), session = %self.session, "files are complete");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::codec::samples;

    fn folder(root: &std::path::Path) -> FileSink {
        FileSink {
            root: root.to_owned(),
            records: RecordFormats {
                jsonl: true,
                avro: true,
                vtt: true,
            },
            pictures: PictureFormats {
                files: false,
                sheets: false,
                columns: 1,
                most: 1,
            },
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
}
