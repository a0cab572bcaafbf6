//! The edges between stages: names resolved, payloads compared, cycles found, everything read by
//! someone, and an order to start in.

use crate::config::{NameRef, Params, Problems, Value};
use crate::packet::PayloadKind;
use crate::stage::{Endpoint, Role};

use super::draft::{InputDraft, StageDraft};

/// The resolved edges.
pub(super) struct Links {
    /// For each stage, for each input: the stage it reads from.
    upstream: Vec<Vec<Option<usize>>>,
    /// None when there is a cycle.
    order: Option<Vec<usize>>,
    live: Vec<bool>,
    source: Vec<bool>,
}

impl Links {
    /// Resolves every input, and says what does not go together.
    pub fn resolve(drafts: &[StageDraft<'_>], problems: &mut Problems) -> Self {
        let before = problems.len();
        let upstream: Vec<Vec<Option<usize>>> = drafts
            .iter()
            .map(|draft| {
                draft
                    .inputs
                    .iter()
                    .map(|input| resolve(draft, input, drafts, problems))
                    .collect()
            })
            .collect();
        for (draft, ups) in drafts.iter().zip(&upstream) {
            check_payloads(draft, ups, drafts, problems);
            check_duplicates(draft, problems);
        }
        let order = order(drafts, &upstream, problems);
        let source = drafts
            .iter()
            .map(|draft| draft.role() == Some(Role::Source))
            .collect();
        let mut links = Self {
            upstream,
            order,
            live: drafts.iter().map(is_live).collect(),
            source,
        };
        for at in links.order.clone().unwrap_or_default() {
            links.live[at] |= links.upstream[at]
                .iter()
                .flatten()
                .any(|up| links.live[*up]);
        }
        if problems.len() == before && drafts.iter().all(|draft| draft.kind.is_some()) {
            links.unread(drafts, problems);
        }
        links
    }

    /// The stage that an input reads from.
    pub fn upstream(&self, stage: usize, input: usize) -> Option<usize> {
        *self.upstream[stage].get(input)?
    }

    /// The stages that a stage reads from.
    pub fn inputs_of(&self, stage: usize) -> impl Iterator<Item = usize> {
        self.upstream[stage].iter().flatten().copied()
    }

    /// Whether a live stream reaches the stage.
    pub fn live(&self, stage: usize) -> bool {
        self.live[stage]
    }

    /// Whether it is a source.
    pub fn is_source(&self, stage: usize) -> bool {
        self.source[stage]
    }

    /// Sources first, each stage after those it reads from; none when there is a cycle.
    pub fn order(&self) -> Option<Vec<usize>> {
        self.order.clone()
    }

    /// The sources that reach a stage. Asked only when there is no cycle.
    pub fn sources(&self, stage: usize) -> Vec<usize> {
        if self.source[stage] {
            return vec![stage];
        }
        let mut found: Vec<usize> = self
            .inputs_of(stage)
            .flat_map(|up| self.sources(up))
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Parameters that name a stage must name one.
    pub fn mentions(
        &self,
        mentions: &[NameRef],
        drafts: &[StageDraft<'_>],
        problems: &mut Problems,
    ) {
        for mention in mentions {
            if !drafts.iter().any(|draft| draft.id == mention.name) {
                let ids = drafts.iter().map(|draft| &*draft.id);
                problems
                    .add(
                        mention.place,
                        format!("there is no stage `{}`", mention.name),
                    )
                    .suggest(&mention.name, ids);
            }
        }
    }

    fn unread(&self, drafts: &[StageDraft<'_>], problems: &mut Problems) {
        for (at, draft) in drafts
            .iter()
            .enumerate()
            .filter(|(_, draft)| draft.role() != Some(Role::Sink))
        {
            let readers: Vec<Option<&str>> = (0..drafts.len())
                .flat_map(|stage| (0..self.upstream[stage].len()).map(move |input| (stage, input)))
                .filter(|(stage, input)| self.upstream[*stage][*input] == Some(at))
                .map(|(stage, input)| drafts[stage].inputs[input].view.as_deref())
                .collect();
            if readers.is_empty() {
                let problem = problems.add(draft.at, format!("nothing reads `{}`", draft.id));
                problem.help("name it in the `inputs` of a sink, or take the stage out");
                continue;
            }
            for (view, _) in views(draft).unwrap_or_default() {
                if !readers.contains(&Some(view.as_str())) {
                    let at = draft
                        .node
                        .entry("with")
                        .and_then(|with| with.value.entry("views"));
                    let at = at
                        .and_then(|views| {
                            views
                                .value
                                .entries()
                                .iter()
                                .find(|entry| entry.key == *view)
                        })
                        .map_or(draft.at, |entry| entry.at);
                    problems.add(at, format!("nothing reads the view `{}.{view}`", draft.id));
                }
            }
        }
    }
}

/// The views of a source whose kind has views.
pub(super) fn views<'a>(draft: &'a StageDraft<'_>) -> Option<&'a [(String, Value)]> {
    draft
        .kind?
        .params
        .iter()
        .any(|field| field.name == "views")
        .then(|| draft.with.opt_map("views"))?
}

/// The parameters of the view that an input reads.
pub(super) fn view<'a>(draft: &'a StageDraft<'_>, name: Option<&str>) -> Option<&'a Params> {
    draft.kind?.view(&draft.with, name?)
}

/// What comes from a stage, or from one of its views.
pub(super) fn gives(draft: &StageDraft<'_>, view: Option<&str>) -> Option<&'static [PayloadKind]> {
    Some(draft.kind?.gives(&draft.with, view))
}

fn is_live(draft: &StageDraft<'_>) -> bool {
    let Some(kind) = draft.kind.filter(|kind| kind.role() == Role::Source) else {
        return false;
    };
    let switch = kind
        .params
        .iter()
        .any(|field| field.name == "live" && matches!(field.ty, crate::config::Type::Bool));
    kind.endpoint == Endpoint::Live || (switch && draft.with.opt_bool("live") == Some(true))
}

fn resolve(
    draft: &StageDraft<'_>,
    input: &InputDraft,
    drafts: &[StageDraft<'_>],
    problems: &mut Problems,
) -> Option<usize> {
    let Some(at) = drafts.iter().position(|other| *other.id == *input.from) else {
        let ids = drafts
            .iter()
            .filter(|other| other.id != draft.id)
            .map(|other| &*other.id);
        problems
            .add(input.at, format!("there is no stage `{}`", input.from))
            .suggest(&input.from, ids);
        return None;
    };
    let upstream = &drafts[at];
    let kind = upstream.kind?;
    if kind.role() == Role::Sink {
        problems.add(
            input.at,
            format!("`{}` is a sink, nothing can be read from it", input.from),
        );
        return None;
    }
    let has_views =
        kind.role() == Role::Source && kind.params.iter().any(|field| field.name == "views");
    match (&input.view, views(upstream).filter(|_| has_views)) {
        (Some(view), _) if !has_views => {
            let message = format!(
                "`{}` has no views, so there is no `{}.{view}`",
                input.from, input.from
            );
            problems
                .add(input.at, message)
                .help(format!("write `{}`", input.from));
            return None;
        }
        (Some(view), Some(views)) if !views.iter().any(|(name, _)| name == view) => {
            let problem = problems.add(input.at, format!("`{}` has no view `{view}`", input.from));
            problem.suggest(view, views.iter().map(|(name, _)| name.as_str()));
            return None;
        }
        (None, Some(views)) => {
            let names: Vec<String> = views
                .iter()
                .map(|(name, _)| format!("`{}.{name}`", input.from))
                .collect();
            problems
                .add(input.at, format!("`{}` is read by its views", input.from))
                .help(format!("write {}", names.join(" or ")));
            return None;
        }
        _ => {}
    }
    Some(at)
}

fn check_payloads(
    draft: &StageDraft<'_>,
    upstream: &[Option<usize>],
    drafts: &[StageDraft<'_>],
    problems: &mut Problems,
) {
    let Some(kind) = draft.kind.filter(|kind| kind.role() != Role::Source) else {
        return;
    };
    for (input, up) in draft.inputs.iter().zip(upstream) {
        let Some(gives) = up.and_then(|up| gives(&drafts[up], input.view.as_deref())) else {
            continue;
        };
        if !gives.iter().any(|payload| kind.accepts.contains(payload)) {
            let from = input.view.as_ref().map_or_else(
                || input.from.to_string(),
                |view| format!("{}.{view}", input.from),
            );
            let message = format!(
                "`{}` takes {}, but `{from}` gives {}",
                draft.id,
                list(kind.accepts),
                list(gives)
            );
            problems.add(input.at, message);
        }
    }
}

/// Payloads in words: `segments, frames and captions`.
pub(super) fn list(payloads: &[PayloadKind]) -> String {
    match payloads {
        [] => "nothing".to_owned(),
        [one] => one.plural().to_owned(),
        [first @ .., last] => format!(
            "{} and {}",
            first
                .iter()
                .map(|kind| kind.plural())
                .collect::<Vec<_>>()
                .join(", "),
            last.plural()
        ),
    }
}

fn check_duplicates(draft: &StageDraft<'_>, problems: &mut Problems) {
    for (at, input) in draft.inputs.iter().enumerate() {
        if draft.inputs[..at]
            .iter()
            .any(|other| other.from == input.from && other.view == input.view)
        {
            problems.add(input.at, format!("`{}` reads this a second time", draft.id));
        }
    }
}

fn order(
    drafts: &[StageDraft<'_>],
    upstream: &[Vec<Option<usize>>],
    problems: &mut Problems,
) -> Option<Vec<usize>> {
    let mut order: Vec<usize> = (0..drafts.len())
        .filter(|&at| drafts[at].role() == Some(Role::Source))
        .collect();
    let mut placed = vec![false; drafts.len()];
    order.iter().for_each(|&at| placed[at] = true);
    while let Some(next) = (0..drafts.len())
        .find(|&at| !placed[at] && upstream[at].iter().flatten().all(|&up| placed[up]))
    {
        placed[next] = true;
        order.push(next);
    }
    let Some(start) = placed.iter().position(|placed| !placed) else {
        return Some(order);
    };
    // Every stage left reads one that is left: walking up must come back.
    let mut path = vec![start];
    loop {
        let last = path[path.len() - 1];
        let up = upstream[last]
            .iter()
            .flatten()
            .copied()
            .find(|&up| !placed[up])?;
        if let Some(begin) = path.iter().position(|&at| at == up) {
            let mut names: Vec<String> = path[begin..]
                .iter()
                .rev()
                .map(|&at| format!("`{}`", drafts[at].id))
                .collect();
            names.push(names[0].clone());
            let input = upstream[last]
                .iter()
                .position(|other| *other == Some(up))
                .unwrap_or_default();
            problems.add(
                drafts[last].inputs[input].at,
                format!(
                    "stages feed one another in a circle: {}",
                    names.join(" -> ")
                ),
            );
            return None;
        }
        path.push(up);
    }
}
