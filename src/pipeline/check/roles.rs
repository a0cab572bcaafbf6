//! Keys must fit the role of their stage.

use super::draft::StageDraft;
use crate::config::{NodeKind, Problems};
use crate::pipeline::grammar::{STAGE, applies};
use crate::stage::Role;

/// Keys must fit the role.
pub(super) fn check(drafts: &[StageDraft<'_>], problems: &mut Problems) {
    for draft in drafts {
        let (Some(role), Some(kind)) = (draft.role(), draft.kind) else {
            continue;
        };
        for entry in draft
            .node
            .entries()
            .iter()
            .filter(|entry| STAGE.iter().any(|field| field.name == entry.key))
        {
            if !applies(&entry.key, role) && !entry.value.is_null() {
                problems.add(
                    entry.at,
                    format!(
                        "`{}` is a {}, which takes no `{}`",
                        draft.id,
                        role.as_str(),
                        entry.key
                    ),
                );
            }
        }
        if role != Role::Source
            && draft.node.entry("inputs").is_none_or(
                |entry| matches!(&entry.value.kind, NodeKind::List(items) if items.is_empty()),
            )
        {
            problems
                .add(draft.at, format!("`{}` reads nothing", draft.id))
                .help("name a stage in `inputs`");
        }
        if kind.is_sequential()
            && draft
                .keys
                .opt_int("concurrency")
                .is_some_and(|packets| packets > 1)
        {
            let message = format!(
                "`{}` remembers packets, so it works on one at a time: `concurrency` must be 1",
                draft.id
            );
            problems.add(draft.place_of("concurrency"), message);
        }
    }
}
