//! Which elementary streams of a source are decoded: chosen among all that there are, before any
//! of them is.

use gstreamer as gst;
use gstreamer::prelude::*;

/// What an elementary stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Media {
    Video,
    Audio,
    /// Subtitles, metadata, whatever no view reads.
    Other,
}

impl Media {
    /// What caps say, without a look at the stream. None for containers and transports, of which
    /// something has to be taken out first.
    pub fn of(caps: &gst::CapsRef) -> Option<Self> {
        let name = caps.structure(0)?.name().as_str();
        if is_container(caps) {
            return None;
        }
        match name.split('/').next()? {
            "video" | "image" => Some(Media::Video),
            "audio" => Some(Media::Audio),
            "text" | "subtitle" | "subpicture" | "closedcaption" | "meta" => Some(Media::Other),
            _ => None,
        }
    }
}

/// An elementary stream, and what speaks for it.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub media: Media,
    /// A picture beside the film: a cover, a thumbnail.
    pub is_still: bool,
    /// Whether the container names it as the one that is played, or as one that is not.
    pub is_default: Option<bool>,
    /// Pixels of a picture, or channels of sound.
    pub size: u64,
    /// Whether something here can decode it.
    pub is_decodable: bool,
}

impl Candidate {
    pub fn of(pad: &gst::Pad, caps: &gst::CapsRef) -> Option<Self> {
        let structure = caps.structure(0)?;
        let side = |name| {
            u64::from(
                structure
                    .get::<i32>(name)
                    .unwrap_or(0)
                    .max(0)
                    .unsigned_abs(),
            )
        };
        let media = Media::of(caps).unwrap_or(Media::Other);
        let flags = pad
            .sticky_event::<gst::event::StreamStart>(0)
            .map(|event| event.stream_flags());
        let is_default = flags.and_then(|flags| {
            let (select, unselect) = (gst::StreamFlags::SELECT, gst::StreamFlags::UNSELECT);
            (flags.intersects(select | unselect)).then(|| flags.contains(select))
        });
        Some(Self {
            media,
            is_still: is_still(structure),
            is_default,
            size: match media {
                Media::Video => side("width") * side("height"),
                _ => 0,
            },
            is_decodable: is_raw(structure) || is_decodable(caps),
        })
    }
}

/// The stream of its kind that is decoded: one that can be, film before still picture, the
/// container's default before others, the largest, the first.
pub(super) fn choose<'a>(
    candidates: impl Iterator<Item = (usize, &'a Candidate)>,
    media: Media,
) -> Option<usize> {
    let of_kind = candidates.filter(|(_, candidate)| candidate.media == media);
    let rank = |(at, candidate): &(usize, &Candidate)| {
        let default = match candidate.is_default {
            Some(true) => 2,
            None => 1,
            Some(false) => 0,
        };
        (
            candidate.is_decodable,
            !candidate.is_still,
            default,
            candidate.size,
            std::cmp::Reverse(*at),
        )
    };
    of_kind.max_by_key(rank).map(|(at, _)| at)
}

/// A codec that is only ever one picture, or a picture without a rate: Matroska and MP4 carry
/// covers as such tracks. Motion JPEG has a rate.
fn is_still(structure: &gst::StructureRef) -> bool {
    let moves = structure
        .get::<gst::Fraction>("framerate")
        .is_ok_and(|rate| rate.numer() > 0);
    structure.name().starts_with("image/") && !moves
}

fn is_raw(structure: &gst::StructureRef) -> bool {
    structure.name().ends_with("/x-raw")
}

/// Whether an element takes the caps apart into streams.
fn is_container(caps: &gst::CapsRef) -> bool {
    takes(
        gst::ElementFactoryType::DEMUXER | gst::ElementFactoryType::DEPAYLOADER,
        caps,
    )
}

/// Whether a decoder is installed for the caps. Parsers in front of it only fill in fields.
fn is_decodable(caps: &gst::CapsRef) -> bool {
    takes(gst::ElementFactoryType::DECODER, caps)
}

fn takes(kind: gst::ElementFactoryType, caps: &gst::CapsRef) -> bool {
    gst::ElementFactory::factories_with_type(kind, gst::Rank::MARGINAL)
        .into_iter()
        .any(|factory| factory.can_sink_any_caps(caps))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn video(size: u64) -> Candidate {
        Candidate {
            media: Media::Video,
            is_still: false,
            is_default: None,
            size,
            is_decodable: true,
        }
    }

    fn chosen(candidates: &[Candidate]) -> Option<usize> {
        choose(candidates.iter().enumerate(), Media::Video)
    }

    #[test]
    fn the_film_is_chosen_whatever_stands_before_it() {
        let cover = Candidate {
            is_still: true,
            is_default: Some(true),
            ..video(4_000_000)
        };
        let sound = Candidate {
            media: Media::Audio,
            ..video(0)
        };
        let named = Candidate {
            is_default: Some(true),
            ..video(100)
        };
        let unnamed = Candidate {
            is_default: Some(false),
            ..video(9000)
        };
        let unknown = Candidate {
            is_decodable: false,
            ..video(9_000_000)
        };
        assert_eq!(chosen(&[sound.clone(), cover.clone(), video(100)]), Some(2));
        assert_eq!(
            chosen(&[cover.clone(), sound.clone()]),
            Some(0),
            "nothing but a cover"
        );
        assert_eq!(
            chosen(&[video(100), video(400), video(400)]),
            Some(1),
            "the first of the largest"
        );
        assert_eq!(
            chosen(&[video(400), named, unnamed]),
            Some(1),
            "the default"
        );
        assert_eq!(chosen(&[unknown.clone(), video(100)]), Some(1));
        assert_eq!(
            chosen(&[unknown]),
            Some(0),
            "so that its codec can be named"
        );
        assert_eq!(chosen(&[sound]), None);
    }
}
