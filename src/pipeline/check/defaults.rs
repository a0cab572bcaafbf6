//! The defaults of a stage that depend on its kind and on what comes before it.

use std::time::Duration;

use super::draft::StageDraft;
use super::links::Links;
use super::values::default;
use crate::config::Value;
use crate::stage::Role;

/// Fills in the defaults that depend on the kind and on what comes before.
pub(super) fn fill(drafts: &mut [StageDraft<'_>], links: &Links) {
    for (at, draft) in drafts.iter_mut().enumerate() {
        let Some(kind) = draft.kind else { continue };
        let concurrency = if kind.role() == Role::Transform && !kind.is_sequential() {
            8
        } else {
            1
        };
        default(&mut draft.keys, "concurrency", Value::Int(concurrency));
        default(
            &mut draft.keys,
            "required",
            Value::Bool(!matches!(kind.name, "redis" | "console")),
        );
        for (number, input) in draft.inputs.iter_mut().enumerate() {
            let Some(upstream) = links.upstream(at, number) else {
                continue;
            };
            let Some(setting) = input.keys.setting("queue") else {
                continue;
            };
            let (provenance, Some(mut queue)) = (
                setting.provenance.clone(),
                setting.value.as_object().cloned(),
            ) else {
                continue;
            };
            let live = links.live(upstream);
            default(
                &mut queue,
                "when_full",
                Value::Text(if live { "drop_oldest" } else { "block" }.into()),
            );
            if live && links.is_source(upstream) {
                default(
                    &mut queue,
                    "max_age",
                    Value::Duration(Duration::from_secs(5)),
                );
            }
            input.keys.insert("queue", Value::Object(queue), provenance);
        }
    }
}
