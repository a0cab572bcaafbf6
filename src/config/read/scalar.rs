//! Scalars as values of their types.

use crate::config::node::Scalar;
use crate::config::problem::{Problem, nearest};
use crate::config::shape::{Type, Value};
use crate::config::units;

/// Why a scalar is no value of its type.
pub(super) enum Refusal {
    Type,
    Quotes,
    Bounds(String),
    Unit,
}

/// Adds what to do about a refusal, where that is known.
pub(super) fn help(problem: &mut Problem, refusal: &Refusal, scalar: &Scalar, ty: &Type) {
    match (refusal, ty) {
        (Refusal::Unit, Type::Duration) => {
            problem.help(format!("write `{0}s` or `{0}ms`", scalar.text));
        }
        (Refusal::Unit, _) => {
            problem.help(format!("write `{0}B`, `{0}KiB` or `{0}MiB`", scalar.text));
        }
        (Refusal::Type, Type::Choice(words)) => {
            if let Some(near) = nearest(&scalar.text, words) {
                problem.help(format!("did you mean `{near}`?"));
            }
        }
        _ => {}
    }
}

/// A scalar as a value of `ty`.
pub(super) fn scalar_value(scalar: &Scalar, ty: &Type) -> Result<Value, Refusal> {
    let text = scalar.text.as_str();
    let typed = !scalar.quoted || scalar.expanded;
    let quotes = |value: Option<Value>| match value {
        Some(_) if !typed => Err(Refusal::Quotes),
        Some(value) => Ok(value),
        None => Err(Refusal::Type),
    };
    match ty {
        Type::Bool => quotes(match text {
            "true" | "True" | "TRUE" => Some(Value::Bool(true)),
            "false" | "False" | "FALSE" => Some(Value::Bool(false)),
            _ => None,
        }),
        Type::Int(low, high) => match quotes(integer(text).map(Value::Int))? {
            Value::Int(number) if number < *low || number > *high => {
                Err(Refusal::Bounds(int_bounds(*low, *high)))
            }
            value => Ok(value),
        },
        Type::IntOrAuto(..) if text == "auto" => Ok(Value::IntOrAuto(None)),
        Type::IntOrAuto(low, high) => {
            match quotes(integer(text).map(|number| Value::IntOrAuto(Some(number))))? {
                Value::IntOrAuto(Some(number)) if number < *low || number > *high => {
                    Err(Refusal::Bounds(int_bounds(*low, *high)))
                }
                value => Ok(value),
            }
        }
        Type::Float(low, high) => match quotes(float(text).map(Value::Float))? {
            Value::Float(number) if number < *low || number > *high => {
                Err(Refusal::Bounds(float_bounds(*low, *high)))
            }
            value => Ok(value),
        },
        Type::Choice(words) => words
            .contains(&text)
            .then(|| Value::Text(text.into()))
            .ok_or(Refusal::Type),
        Type::Duration => units::duration(text)
            .map(Value::Duration)
            .ok_or_else(|| unit_missing(text)),
        Type::Bytes => units::bytes(text)
            .map(Value::Bytes)
            .ok_or_else(|| unit_missing(text)),
        Type::Fps => units::fps(text).map(Value::Fps).ok_or(Refusal::Type),
        Type::Size => units::size(text).map(Value::Size).ok_or(Refusal::Type),
        _ => Ok(Value::Text(text.into())),
    }
}

fn unit_missing(text: &str) -> Refusal {
    if float(text).is_some_and(|number| number >= 0.0) {
        Refusal::Unit
    } else {
        Refusal::Type
    }
}

/// A whole number of YAML's core schema.
fn integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if let Some(hex) = text.strip_prefix("0x") {
        return i64::from_str_radix(hex, 16).ok();
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return i64::from_str_radix(octal, 8).ok();
    }
    (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())?
}

/// A finite number of YAML's core schema.
fn float(text: &str) -> Option<f64> {
    let allowed = |c: char| c.is_ascii_digit() || matches!(c, '.' | '+' | '-' | 'e' | 'E');
    (text.chars().all(allowed) && text.contains(|c: char| c.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
        .filter(|n: &f64| n.is_finite())
}

fn int_bounds(low: i64, high: i64) -> String {
    match (low, high) {
        (low, high) if low == high => low.to_string(),
        (low, i64::MAX) => format!("at least {low}"),
        (i64::MIN, high) => format!("at most {high}"),
        (low, high) => format!("between {low} and {high}"),
    }
}

fn float_bounds(low: f64, high: f64) -> String {
    match (low, high) {
        (low, high) if high >= f64::MAX => format!("at least {low}"),
        (low, high) if low <= f64::MIN => format!("at most {high}"),
        (low, high) => format!("between {low} and {high}"),
    }
}

impl Type {
    /// What it takes, in messages: `a whole number`.
    pub fn describe(&self) -> String {
        match self {
            Type::Bool => "true or false".to_owned(),
            Type::Int(..) => "a whole number".to_owned(),
            Type::IntOrAuto(..) => "a whole number, or `auto`".to_owned(),
            Type::Float(..) => "a number".to_owned(),
            Type::Text => "a text".to_owned(),
            Type::Choice([]) => "nothing".to_owned(),
            Type::Choice([one]) => (*one).to_owned(),
            Type::Choice([first @ .., last]) => format!("{} or {last}", first.join(", ")),
            Type::Duration => "a time such as `500ms`, `15s` or `1h30m`".to_owned(),
            Type::Bytes => "a size such as `64KiB` or `2GiB`".to_owned(),
            Type::Fps => {
                "frames a second such as `2`, `0.5` or `30000/1001`, or `native`".to_owned()
            }
            Type::Size => "a size such as `640x360`, or `native`".to_owned(),
            Type::Model(_) => "the name of a model".to_owned(),
            Type::ModelSpecific(_, inner) => inner.describe(),
            Type::Stage => "the id of a stage".to_owned(),
            Type::Secret => "`{ file: PATH }` or a text".to_owned(),
            Type::List(inner) => format!("a list, each {}", inner.describe()),
            Type::Map(_) | Type::Object(_) => "a mapping".to_owned(),
            Type::Unchecked => "a value".to_owned(),
        }
    }
}
