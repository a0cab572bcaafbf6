//! Profiles: what `profile` sets for the entries of `models` that say nothing themselves.

use crate::config::{Params, Provenance, Value};

/// Most items that may wait by default, where batches are measured up to half of it.
const DEEP_QUEUE: i64 = 256;

/// What a profile sets: a key of an entry, or of a mapping in it, and its value.
type Settings = Vec<(&'static [&'static str], Value)>;

/// Many items a second, whatever one of them waits.
fn throughput() -> Settings {
    vec![
        (&["tf32"], Value::Bool(true)),
        (&["queue"], Value::Int(DEEP_QUEUE)),
        (&["batch", "max_size"], Value::IntOrAuto(None)),
        (
            &["batch", "max_wait"],
            Value::Duration(std::time::Duration::from_millis(20)),
        ),
    ]
}

/// Each item soon, at the price of the whole: small batches, and none that waits to be filled.
fn latency() -> Settings {
    vec![
        (&["tf32"], Value::Bool(true)),
        (&["queue"], Value::Int(16)),
        (&["batch", "max_size"], Value::IntOrAuto(Some(4))),
        (
            &["batch", "max_wait"],
            Value::Duration(std::time::Duration::ZERO),
        ),
    ]
}

/// Little memory, at the price of time.
fn memory() -> Settings {
    vec![
        (&["precision"], Value::Text("bf16".into())),
        (&["attention"], Value::Text("sliced".into())),
        (&["offload"], Value::Text("model".into())),
        (&["vae", "slicing"], Value::Bool(true)),
        (&["vae", "tiling"], Value::Bool(true)),
        (&["queue"], Value::Int(8)),
        (&["batch", "max_size"], Value::IntOrAuto(Some(2))),
    ]
}

fn settings(profile: &str) -> Settings {
    match profile {
        "throughput" => throughput(),
        "latency" => latency(),
        "memory" => memory(),
        _ => vec![(&["size"], Value::Text("small".into()))],
    }
}

/// Puts the values of each entry's profile, its own or the pipeline's, in the place of defaults.
pub(crate) fn fill(top: &mut Params) {
    let shared = top.opt_text("profile").cloned();
    let Some(setting) = top.setting("models") else {
        return;
    };
    let (provenance, Value::Map(mut entries)) = (setting.provenance.clone(), setting.value.clone())
    else {
        return;
    };
    for (_, entry) in &mut entries {
        let Value::Object(keys) = entry else { continue };
        if let Some(profile) = keys.opt_text("profile").or(shared.as_ref()).cloned() {
            settings(&profile)
                .into_iter()
                .for_each(|(path, value)| put(keys, path, value, &profile));
        }
    }
    top.insert("models", Value::Map(entries), provenance);
}

/// Puts a value where the default stands.
fn put(keys: &mut Params, path: &'static [&'static str], value: Value, profile: &str) {
    let [key, rest @ ..] = path else { return };
    let Some(setting) = keys.setting(key) else {
        return;
    };
    let provenance = setting.provenance.clone();
    if !rest.is_empty() {
        let Value::Object(mut inner) = setting.value.clone() else {
            return;
        };
        put(&mut inner, rest, value, profile);
        keys.insert(key, Value::Object(inner), provenance);
    } else if provenance == Provenance::Default {
        keys.insert(key, value, Provenance::Profile(profile.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Type;
    use crate::pipeline::grammar::{MODEL, PROFILES};

    #[test]
    fn profiles_set_keys_that_there_are_to_values_that_they_take() {
        for profile in PROFILES {
            for (path, value) in settings(profile) {
                let field = path.iter().fold((MODEL, None), |(fields, _), key| {
                    let field = fields
                        .iter()
                        .find(|field| field.name == *key)
                        .unwrap_or_else(|| panic!("{profile}: no key {path:?}"));
                    (
                        if let Type::Object(inner) = field.ty {
                            inner
                        } else {
                            &[]
                        },
                        Some(&field.ty),
                    )
                });
                let fits = match (field.1.expect("a path has a key"), &value) {
                    (Type::Bool, Value::Bool(_))
                    | (Type::Duration, Value::Duration(_))
                    | (Type::IntOrAuto(..), Value::IntOrAuto(None)) => true,
                    (Type::Int(low, high), Value::Int(number))
                    | (Type::IntOrAuto(low, high), Value::IntOrAuto(Some(number))) => {
                        (low..=high).contains(&number)
                    }
                    (Type::Choice(words), Value::Text(word)) => words.contains(&&**word),
                    _ => false,
                };
                assert!(fits, "{profile}: {path:?} is {value:?}");
            }
        }
    }
}
