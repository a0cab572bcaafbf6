//! `cli.md`: every command and option, as clap knows them; hidden commands are left out.

use clap::{Arg, Command};

use super::markdown::{code, codes, heading, page, table};
use crate::cli::arguments;

pub(super) fn render() -> String {
    let mut command = arguments::command();
    // Gives every command its full name.
    command.build();
    let about = text(command.get_about());
    let mut page = page("Commands", &about);
    if let Some(codes) = command.get_after_help() {
        page.push_str(&format!("\n```text\n{codes}\n```\n"));
    }
    section(&mut command, &mut page);
    page
}

/// The commands below `command`, each followed by its own.
fn section(command: &mut Command, page: &mut String) {
    for below in command.get_subcommands_mut() {
        if below.is_hide_set() || below.get_name() == "help" {
            continue;
        }
        let name = below.get_bin_name().unwrap_or(below.get_name()).to_owned();
        heading(2, &code(&name), page);
        page.push_str(&format!("{}\n\n", text(below.get_about())));
        let usage = below.render_usage().to_string();
        page.push_str(&format!("```text\n{}\n```\n", usage.trim()));
        let rows: Vec<_> = below
            .get_arguments()
            .filter(|argument| {
                let id = argument.get_id().as_str();
                !argument.is_hide_set() && id != "help" && id != "version"
            })
            .map(row)
            .collect();
        if !rows.is_empty() {
            page.push('\n');
            table(["argument", "default", "what it does"], &rows, page);
        }
        if let Some(after) = below.get_after_help() {
            page.push_str(&format!("\n{after}\n"));
        }
        section(below, page);
    }
}

fn row(argument: &Arg) -> [String; 3] {
    let values: Vec<_> = argument.get_value_names().unwrap_or_default().to_vec();
    let mut name = match argument.get_long() {
        Some(long) => format!("--{long}"),
        None => String::new(),
    };
    if argument.get_action().takes_values() {
        let ends = if name.is_empty() {
            ("<", ">")
        } else {
            (" <", ">")
        };
        for value in values {
            name.push_str(&format!("{}{value}{}", ends.0, ends.1));
        }
    }
    let defaults: Vec<_> = argument
        .get_default_values()
        .iter()
        .filter_map(|value| value.to_str())
        .collect();
    let default = if argument.is_required_set() {
        "**required**".to_owned()
    } else if argument.get_action().takes_values() {
        codes(&defaults)
    } else {
        String::new()
    };
    let mut says = text(argument.get_help());
    let words: Vec<_> = argument
        .get_possible_values()
        .iter()
        .map(|value| value.get_name().to_owned())
        .collect();
    if !words.is_empty() && argument.get_action().takes_values() {
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        says.push_str(&format!(" One of {}.", codes(&words)));
    }
    if let Some(variable) = argument.get_env().and_then(|name| name.to_str()) {
        says.push_str(&format!(" Also from the variable {}.", code(variable)));
    }
    [code(&name), default, says]
}

/// Help on one line, with the full stop that clap takes off.
fn text(help: Option<&clap::builder::StyledStr>) -> String {
    let help = help.map(ToString::to_string).unwrap_or_default();
    let mut line = help.split_whitespace().collect::<Vec<_>>().join(" ");
    if !line.is_empty() && !line.ends_with(['.', ':', '!']) {
        line.push('.');
    }
    line
}
