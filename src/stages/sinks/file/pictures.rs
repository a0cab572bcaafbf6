//! Pictures as files of their own, and contact sheets of them by role.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use bytes::Bytes;

use super::paths::{file_name, unwritable};
use crate::Result;
use crate::media;
use crate::packet::{Packet, Picture, Span};

/// Width and height of a picture on a contact sheet, in pixels.
const TILE: (u32, u32) = (240, 135);

/// What is written of pictures.
#[derive(Debug, Clone, Copy)]
pub(super) struct PictureFormats {
    /// Each picture is a file.
    pub files: bool,
    /// There are contact sheets.
    pub sheets: bool,
    /// Pictures in a row of a sheet.
    pub columns: u32,
    /// Most pictures on a sheet.
    pub most: usize,
}

/// The pictures of one stream, in its folder.
pub(super) struct Pictures {
    folder: PathBuf,
    formats: PictureFormats,
    /// What goes on the contact sheets, by role.
    sheets: BTreeMap<String, Vec<(Span, Bytes)>>,
}

impl Pictures {
    pub fn new(folder: PathBuf, formats: PictureFormats) -> Self {
        Self {
            folder,
            formats,
            sheets: BTreeMap::new(),
        }
    }

    /// Writes the picture that `packet` carries.
    ///
    /// # Errors
    /// External where its file cannot be written.
    pub fn write(&mut self, packet: &Packet, picture: &Picture) -> Result<()> {
        let extension = match &*picture.media_type {
            "image/jpeg" => "jpg",
            "image/png" => "png",
            "image/webp" => "webp",
            _ => return Ok(()),
        };
        if self.formats.files {
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
        if self.formats.sheets {
            let sheet = self.sheets.entry(file_name(&picture.role)).or_default();
            if sheet.len() < self.formats.most {
                sheet.push((packet.head.span, picture.data.clone()));
            }
        }
        Ok(())
    }

    /// Writes the contact sheets.
    ///
    /// # Errors
    /// External where one cannot be made or written.
    pub fn finish(&mut self) -> Result<()> {
        for (role, mut pictures) in std::mem::take(&mut self.sheets) {
            pictures.sort_by_key(|(span, _)| *span);
            let pictures: Vec<Bytes> = pictures.into_iter().map(|(_, data)| data).collect();
            let sheet = media::contact_sheet(&pictures, self.formats.columns, TILE)?;
            let path = self.folder.join(format!("contact_sheet-{role}.jpg"));
            fs::write(&path, sheet).map_err(|error| unwritable(&path, error))?;
        }
        Ok(())
    }
}
