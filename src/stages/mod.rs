//! Every stage kind, one file each, and the table that lists them. To add a kind: write its file,
//! add its line to `KINDS`.

mod sinks;
mod sources;
mod transforms;

use crate::stage::StageKind;

/// Every stage kind, sources first, as `opusflow stages` lists them.
pub const KINDS: &[&StageKind] = &[
    &sources::file::KIND,
    &sources::live::KIND,
    &sources::test::KIND,
    &transforms::caption::KIND,
    &transforms::diffuse::KIND,
    &transforms::embed::KIND,
    &transforms::encode::KIND,
    &transforms::keyframe::KIND,
    &transforms::sample::KIND,
    &transforms::shots::KIND,
    &transforms::torchscript::KIND,
    &transforms::transcribe::KIND,
    &sinks::console::KIND,
    &sinks::discard::KIND,
    &sinks::file::KIND,
    &sinks::kafka::KIND,
    &sinks::redis::KIND,
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_kind_has_one_name_a_text_and_fitting_payloads() {
        let names: BTreeSet<_> = KINDS
            .iter()
            .map(|kind| (kind.name, kind.role().as_str()))
            .collect();
        assert_eq!(names.len(), KINDS.len());
        for kind in KINDS {
            assert!(kind.doc.ends_with('.'), "{}", kind.name);
            assert_eq!(
                kind.accepts.is_empty(),
                kind.role() == crate::stage::Role::Source,
                "{}",
                kind.name
            );
            assert_eq!(
                kind.emits.is_empty(),
                kind.role() == crate::stage::Role::Sink,
                "{}",
                kind.name
            );
            for field in kind.params {
                assert!(field.doc.ends_with('.'), "{}.{}", kind.name, field.name);
            }
        }
    }
}
