//! The key `join`: its sides are inputs, and come from the same source, or their times could not be
//! compared.

use std::time::Duration;

use super::draft::StageDraft;
use super::links::{Links, gives, list};
use super::sections::Architectures;
use super::values::{default, text_of};
use crate::config::{Node, Place, Problems, Value};
use crate::packet::PayloadKind;
use crate::stage::{JoinSettings, Joins, Late, Role};

/// The default of `wait` where a live stream is joined.
const LIVE_WAIT: Duration = Duration::from_secs(3);

/// The join of the stage at `at`, its defaults filled into the stage's keys. None without one, or
/// when it is wrong.
pub(super) fn settings(
    at: usize,
    drafts: &mut [StageDraft<'_>],
    links: &Links,
    networks: &Architectures,
    problems: &mut Problems,
) -> Option<JoinSettings> {
    let draft = &drafts[at];
    let network = draft
        .with
        .opt_text("model")
        .and_then(|name| networks.get(&**name))
        .map(String::as_str);
    let joins = draft
        .kind
        .map_or(Joins::AsWritten, |kind| kind.joins.with(network));
    let Some(setting) = draft.keys.setting("join") else {
        missing(at, joins, drafts, links, problems);
        return None;
    };
    let (provenance, mut keys) = (
        setting.provenance.clone(),
        setting.value.as_object()?.clone(),
    );
    if draft.role() != Some(Role::Transform) {
        return None;
    }
    if draft.inputs.len() < 2 {
        problems.add(
            draft.place_of("join"),
            format!(
                "`{}` has nothing to join: it reads {}",
                draft.id,
                draft.inputs.len()
            ),
        );
        return None;
    }
    let join = &draft.node.entry("join")?.value;
    let per = side(draft, keys.text("per"), place(join, "per", 0), problems)?;
    if let Some(payload) = joins.per()
        && drives(at, per, payload, drafts, links) == Some(false)
    {
        let message = format!(
            "`{}` works on {}, which `{}` does not give",
            draft.id,
            payload.plural(),
            name(draft, per)
        );
        problems
            .add(place(join, "per", 0), message)
            .help(format!("name an input that gives {}", payload.plural()));
        return None;
    }
    let collect = collected(draft, join, per, keys.opt_list("collect"), problems)?;
    let order = links.order()?;
    let reachable = |input: usize| Some(links.sources(links.upstream(at, input)?));
    let driving = reachable(per)?;
    let mut sound = order.contains(&at);
    for &input in &collect {
        let collected = reachable(input)?;
        // An input whose own input is not there comes from nowhere; that was said.
        let known = !collected.is_empty() && !driving.is_empty();
        if known && !collected.iter().any(|source| driving.contains(source)) {
            let (one, other) = (&draft.inputs[per].from, &draft.inputs[input].from);
            let message = format!(
                "`{one}` and `{other}` come from different sources, so their times cannot be \
                 compared"
            );
            problems.add(draft.inputs[input].at, message);
            sound = false;
        }
    }
    let names = collect
        .iter()
        .map(|&input| Value::Text(name(draft, input).into()))
        .collect();
    default(&mut keys, "collect", Value::List(names));
    if links.live(at) {
        default(&mut keys, "wait", Value::Duration(LIVE_WAIT));
    }
    let late = if **keys.text("late") == *"drop" {
        Late::Drop
    } else {
        Late::Partial
    };
    let settings = JoinSettings {
        per,
        collect,
        wait: keys.opt_duration("wait"),
        late,
    };
    drafts[at]
        .keys
        .insert("join", Value::Object(keys), provenance);
    sound.then_some(settings)
}

/// Says that the stage at `at` needs a join and has none: some kinds take what they work with only
/// as a join has collected it.
fn missing(
    at: usize,
    joins: Joins,
    drafts: &[StageDraft<'_>],
    links: &Links,
    problems: &mut Problems,
) {
    let draft = &drafts[at];
    let (Some(kind), Some(payload), Some(entry)) =
        (draft.kind, joins.per(), draft.node.entry("inputs"))
    else {
        return;
    };
    // An input that comes from nowhere was said.
    let all = |payload| {
        (0..draft.inputs.len())
            .map(|input| drives(at, input, payload, drafts, links))
            .collect::<Option<Vec<bool>>>()
    };
    let Some(driving) = all(payload) else { return };
    let alone = match joins {
        Joins::Either { alone, .. }
            if all(alone).is_some_and(|drives| drives.iter().all(|alone| *alone)) =>
        {
            return;
        }
        Joins::Either { alone, .. } => Some(alone),
        Joins::Per(_) if driving.iter().all(|drives| *drives) => return,
        _ => None,
    };
    let names = |side: bool| {
        (0..driving.len())
            .filter(|&input| driving[input] == side)
            .map(|input| name(draft, input))
            .collect::<Vec<_>>()
    };
    let (per, collect) = (names(true), names(false));
    let others: Vec<_> = match alone {
        Some(alone) => vec![alone],
        None => kind
            .accepts
            .iter()
            .copied()
            .filter(|other| *other != payload)
            .collect(),
    };
    let (payloads, others) = (payload.plural(), list(&others));
    let help = match (&per[..], &collect[..]) {
        ([], _) => format!(
            "read {payloads} too, and add `join: {{ per: ..., collect: [{}] }}`",
            collect.join(", ")
        ),
        (_, []) => format!(
            "read {others} too, and add `join: {{ per: {}, collect: [...] }}`",
            per[0]
        ),
        _ => format!(
            "add `join: {{ per: {}, collect: [{}] }}`",
            per[0],
            collect.join(", ")
        ),
    };
    let message = match alone {
        Some(alone) => {
            let alone = alone.plural();
            format!(
                "`{}` works on {alone}, or on {payloads} with the {alone} that a join collects \
                 for them",
                draft.id
            )
        }
        None => format!(
            "`{}` works on {payloads}, and takes {others} only as a join collects them",
            draft.id
        ),
    };
    problems.add(entry.at, message).help(help);
}

/// Whether an input gives `payload`; none where it comes from nowhere.
fn drives(
    at: usize,
    input: usize,
    payload: PayloadKind,
    drafts: &[StageDraft<'_>],
    links: &Links,
) -> Option<bool> {
    let gives = gives(
        &drafts[links.upstream(at, input)?],
        drafts[at].inputs[input].view.as_deref(),
    )?;
    Some(gives.contains(&payload))
}

fn collected(
    draft: &StageDraft<'_>,
    join: &Node,
    per: usize,
    named: Option<&[Value]>,
    problems: &mut Problems,
) -> Option<Vec<usize>> {
    let Some(named) = named else {
        return Some(
            (0..draft.inputs.len())
                .filter(|&input| input != per)
                .collect(),
        );
    };
    let sides: Vec<Option<usize>> = named
        .iter()
        .enumerate()
        .map(|(number, value)| {
            side(
                draft,
                text_of(value),
                place(join, "collect", number),
                problems,
            )
        })
        .collect();
    let sides: Vec<usize> = sides.into_iter().collect::<Option<_>>()?;
    if let Some(number) = sides.iter().position(|&side| side == per) {
        problems.add(
            place(join, "collect", number),
            format!(
                "`{}` drives the join, so it cannot be collected too",
                name(draft, per)
            ),
        );
        return None;
    }
    if let Some(number) = (1..sides.len()).find(|&number| sides[..number].contains(&sides[number]))
    {
        problems.add(
            place(join, "collect", number),
            "this is collected a second time",
        );
        return None;
    }
    if let Some(left) =
        (0..draft.inputs.len()).find(|&input| input != per && !sides.contains(&input))
    {
        let message = format!(
            "the join of `{}` says nothing about its input `{}`",
            draft.id,
            name(draft, left)
        );
        problems
            .add(draft.inputs[left].at, message)
            .help("name it in `collect`");
        return None;
    }
    Some(sides)
}

/// The input that a side names.
fn side(draft: &StageDraft<'_>, named: &str, at: Place, problems: &mut Problems) -> Option<usize> {
    let whole = draft
        .inputs
        .iter()
        .position(|input| format_name(&input.from, input.view.as_deref()) == named);
    let found = whole.or_else(|| {
        let mut same = (0..draft.inputs.len()).filter(|&input| draft.inputs[input].from == named);
        let first = same.next()?;
        same.next().is_none().then_some(first)
    });
    if found.is_none() {
        let names: Vec<String> = (0..draft.inputs.len())
            .map(|input| name(draft, input))
            .collect();
        let problem = problems.add(at, format!("`{named}` is not an input of `{}`", draft.id));
        problem.suggest(named, names.iter().map(String::as_str));
    }
    found
}

fn name(draft: &StageDraft<'_>, input: usize) -> String {
    format_name(
        &draft.inputs[input].from,
        draft.inputs[input].view.as_deref(),
    )
}

fn format_name(from: &str, view: Option<&str>) -> String {
    view.map_or_else(|| from.to_owned(), |view| format!("{from}.{view}"))
}

fn place(join: &Node, key: &str, number: usize) -> Place {
    let Some(entry) = join.entry(key) else {
        return join.place;
    };
    entry
        .value
        .items()
        .get(number)
        .map_or(entry.value.place, |item| item.place)
}
