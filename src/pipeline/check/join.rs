//! The key `join`: its sides are inputs, and come from the same source, or their times could not be
//! compared.

use std::time::Duration;

use super::draft::StageDraft;
use super::links::{Links, gives, list};
use super::sections::Architectures;
use super::values::{default, text_of};
use crate::config::{Node, Place, Problems, Value};
use crate::packet::PayloadKind;
use crate::stage::{JoinSettings, Joins, Late, Role, StageKind};

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
    let joins = declared(draft, networks);
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
        let (id, inputs) = (&draft.id, draft.inputs.len());
        let message = format!("`{id}` has nothing to join: it reads {inputs}");
        problems.add(draft.place_of("join"), message);
        return None;
    }
    let join = &draft.node.entry("join")?.value;
    let per = side(draft, keys.text("per"), place(join, "per", 0), problems)?;
    if let Some(payload) = joins.per()
        && drives(at, per, payload, drafts, links) == Some(false)
    {
        cannot_drive((draft, join), per, payload, problems);
        return None;
    }
    let collect = collected(draft, join, per, keys.opt_list("collect"), problems)?;
    let sound = comparable((at, draft), per, &collect, links, problems)?;
    let names = collect
        .iter()
        .map(|&input| Value::Text(name(draft, input).into()))
        .collect();
    default(&mut keys, "collect", Value::List(names));
    if links.live(at) {
        default(&mut keys, "wait", Value::Duration(LIVE_WAIT));
    }
    let settings = JoinSettings {
        per,
        collect,
        wait: keys.opt_duration("wait"),
        late: match &**keys.text("late") {
            "drop" => Late::Drop,
            _ => Late::Partial,
        },
    };
    drafts[at]
        .keys
        .insert("join", Value::Object(keys), provenance);
    sound.then_some(settings)
}

/// What the stage's kind says of joins, with the network that its model is.
fn declared(draft: &StageDraft<'_>, networks: &Architectures) -> Joins {
    let network = draft
        .with
        .opt_text("model")
        .and_then(|name| networks.get(&**name))
        .map(String::as_str);
    draft
        .kind
        .map_or(Joins::AsWritten, |kind| kind.joins.with(network))
}

/// Says that the input `per` does not give what the stage works on.
fn cannot_drive(
    (draft, join): (&StageDraft<'_>, &Node),
    per: usize,
    payload: PayloadKind,
    problems: &mut Problems,
) {
    let (id, given, payload) = (&draft.id, name(draft, per), payload.plural());
    let message = format!("`{id}` works on {payload}, which `{given}` does not give");
    problems
        .add(place(join, "per", 0), message)
        .help(format!("name an input that gives {payload}"));
}

/// Whether every input of a join has a source in common with the one that drives it; where it has
/// none, that is said. None where the links are broken, which was said.
fn comparable(
    (at, draft): (usize, &StageDraft<'_>),
    per: usize,
    collect: &[usize],
    links: &Links,
    problems: &mut Problems,
) -> Option<bool> {
    let order = links.order()?;
    let reachable = |input: usize| Some(links.sources(links.upstream(at, input)?));
    let driving = reachable(per)?;
    let mut sound = order.contains(&at);
    for &input in collect {
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
    Some(sound)
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
    let (message, help) = say_missing(draft, kind, (payload, alone), &driving);
    problems.add(entry.at, message).help(help);
}

/// What is said of a stage that needs a join, and what helps: it works on `payload`, or on `alone`
/// without a join; `driving` tells which inputs give `payload`.
fn say_missing(
    draft: &StageDraft<'_>,
    kind: &StageKind,
    (payload, alone): (PayloadKind, Option<PayloadKind>),
    driving: &[bool],
) -> (String, String) {
    let names = |side: bool| {
        (0..driving.len())
            .filter(|&input| driving[input] == side)
            .map(|input| name(draft, input))
            .collect::<Vec<_>>()
    };
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
    let help = match (&names(true)[..], &names(false)[..]) {
        ([], collect) => format!(
            "read {payloads} too, and add `join: {{ per: ..., collect: [{}] }}`",
            collect.join(", ")
        ),
        ([per, ..], []) => {
            format!("read {others} too, and add `join: {{ per: {per}, collect: [...] }}`")
        }
        ([per, ..], collect) => format!(
            "add `join: {{ per: {per}, collect: [{}] }}`",
            collect.join(", ")
        ),
    };
    (message, help)
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
