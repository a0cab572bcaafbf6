//! The stage graph as pictures: Mermaid for documents, dot for Graphviz.

use super::plan::{InputPlan, Plan, StagePlan};
use crate::config::units;
use crate::stage::{Role, WhenFull};

/// The graph as a Mermaid flowchart.
pub fn mermaid(plan: &Plan) -> String {
    let mut out = String::from("flowchart LR\n");
    for (at, stage) in plan.stages.iter().enumerate() {
        let (open, close) = match stage.kind.role() {
            Role::Source => ("([", "])"),
            Role::Transform => ("[", "]"),
            Role::Sink => ("[(", ")]"),
        };
        out.push_str(&format!(
            "  n{at}{open}\"{}\"{close}\n",
            words(&label(stage), "<br/>", "#quot;")
        ));
    }
    for (from, to, edge) in edges(plan) {
        out.push_str(&format!(
            "  n{from} -->|\"{}\"| n{to}\n",
            words(&edge, "<br/>", "#quot;")
        ));
    }
    out
}

/// The graph in Graphviz' language.
pub fn dot(plan: &Plan) -> String {
    let mut out = format!(
        "digraph \"{}\" {{\n  rankdir=LR;\n  node [fontname=\"sans-serif\"];\n  edge \
         [fontname=\"sans-serif\", fontsize=10];\n",
        plan.name
    );
    for (at, stage) in plan.stages.iter().enumerate() {
        let shape = match stage.kind.role() {
            Role::Source => "oval",
            Role::Transform => "box",
            Role::Sink => "cylinder",
        };
        out.push_str(&format!(
            "  n{at} [shape={shape}, label=\"{}\"];\n",
            words(&label(stage), "\\n", "\\\"")
        ));
    }
    for (from, to, edge) in edges(plan) {
        out.push_str(&format!(
            "  n{from} -> n{to} [label=\"{}\"];\n",
            words(&edge, "\\n", "\\\"")
        ));
    }
    out.push_str("}\n");
    out
}

fn words(lines: &[String], line_break: &str, quote: &str) -> String {
    lines
        .iter()
        .map(|line| line.replace('"', quote))
        .collect::<Vec<_>>()
        .join(line_break)
}

fn label(stage: &StagePlan) -> Vec<String> {
    if *stage.id == *stage.kind.name {
        vec![stage.id.to_string()]
    } else {
        vec![stage.id.to_string(), format!("({})", stage.kind.name)]
    }
}

/// From, to, and the lines on the edge.
fn edges(plan: &Plan) -> Vec<(usize, usize, Vec<String>)> {
    let mut edges = Vec::new();
    for (to, stage) in plan.stages.iter().enumerate() {
        for (number, input) in stage.inputs.iter().enumerate() {
            let side = stage
                .join
                .as_ref()
                .map(|join| if join.per == number { "per" } else { "collect" });
            let lines = input
                .view
                .iter()
                .map(|view| view.to_string())
                .chain(side.map(str::to_owned))
                .chain([queue(input)])
                .collect();
            edges.push((input.from, to, lines));
        }
    }
    edges
}

fn queue(input: &InputPlan) -> String {
    let queue = &input.queue;
    let when_full = match queue.when_full {
        WhenFull::Block => "block",
        WhenFull::DropOldest => "drop_oldest",
        WhenFull::DropNewest => "drop_newest",
    };
    let age = queue.max_age.map_or_else(String::new, |age| {
        format!(", {}", units::write_duration(age))
    });
    format!(
        "{} packets, {}, {when_full}{age}",
        queue.frames,
        units::write_bytes(queue.bytes as u64)
    )
}
