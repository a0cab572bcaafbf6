//! Shapes: what keys a mapping may have, of which type, with which default and documentation. One
//! table serves checking, defaults, `opusflow stages`, the JSON Schema and `graph --effective`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// One key of a mapping.
#[derive(Debug)]
pub struct Field {
    /// The key.
    pub name: &'static str,
    /// What it may hold.
    pub ty: Type,
    /// What holds when it is left out.
    pub default: Default,
    /// Effect and unit, in one or two sentences.
    pub doc: &'static str,
}

/// What holds when a key is left out.
#[derive(Debug, Clone, Copy)]
pub enum Default {
    /// It must be given.
    Required,
    /// Nothing: the optional getters give `None`.
    Absent,
    /// This YAML text, checked like the user's own.
    Is(&'static str),
}

/// What a key may hold.
#[derive(Debug)]
pub enum Type {
    /// `true` or `false`.
    Bool,
    /// A whole number within bounds, both included.
    Int(i64, i64),
    /// A whole number within bounds, both included, or the word `auto`.
    IntOrAuto(i64, i64),
    /// A number within bounds, both included.
    Float(f64, f64),
    /// Any text.
    Text,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A length of time with its unit: `500ms`, `15s`, `10m`, `1h`.
    Duration,
    /// A size with its unit: `512B`, `64KiB`, `16MiB`, `2GiB`.
    Bytes,
    /// Frames a second (`2`, `0.5`, `30000/1001`), or the word `native`.
    Fps,
    /// Width and height in pixels, `640x360`, or the word `native`.
    Size,
    /// The name of an entry of `models:` whose network is one of these architectures.
    Model(&'static [&'static str]),
    /// Of the inner type, and only where the entry of `models:` that the key `model` beside it
    /// names is of one of these architectures.
    ModelSpecific(&'static [&'static str], &'static Type),
    /// The id of a stage.
    Stage,
    /// Text that is never printed: `{file: PATH}` or plain text.
    Secret,
    /// A list; a single element may stand without its brackets.
    List(&'static Type),
    /// A mapping with free keys.
    Map(&'static Type),
    /// A mapping with these keys and no others.
    Object(&'static [Field]),
    /// Anything: whoever owns the shape checks the node; it does not enter [`Params`].
    Unchecked,
}

/// Frames a second as a fraction; `None` stands for the source's own.
pub type Fps = Option<(u32, u32)>;

/// Text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one who must use it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A checked value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Of [`Type::Bool`].
    Bool(bool),
    /// Of [`Type::Int`].
    Int(i64),
    /// Of [`Type::IntOrAuto`]; `None` for `auto`.
    IntOrAuto(Option<i64>),
    /// Of [`Type::Float`].
    Float(f64),
    /// Of [`Type::Text`], [`Type::Choice`], [`Type::Model`] and [`Type::Stage`].
    Text(Arc<str>),
    /// Of [`Type::Duration`].
    Duration(Duration),
    /// Of [`Type::Bytes`].
    Bytes(u64),
    /// Of [`Type::Fps`].
    Fps(Fps),
    /// Of [`Type::Size`]; `None` for `native`.
    Size(Option<(u32, u32)>),
    /// Of [`Type::Secret`].
    Secret(Secret),
    /// Of [`Type::List`].
    List(Vec<Value>),
    /// Of [`Type::Map`], in the order of the file.
    Map(Vec<(String, Value)>),
    /// Of [`Type::Object`].
    Object(Params),
}

/// Where a value comes from, shown by `graph --effective`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provenance {
    /// The shape's default.
    Default,
    /// A profile, in place of the shape's default.
    Profile(String),
    /// The file, at this line (from 1).
    File(usize),
    /// An environment variable, through the file's line.
    Environment(String, usize),
    /// A flag of the command line.
    Flag,
}

/// A checked mapping. Its getters may be asked only for keys that its shape declares, by the type
/// declared.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Params(BTreeMap<&'static str, Setting>);

/// A value with where it comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// The value.
    pub value: Value,
    /// Where it comes from.
    pub provenance: Provenance,
}

macro_rules! getters {
    ($($(#[$doc:meta])* $name:ident, $optional:ident -> $out:ty : $pattern:pat => $value:expr;)*) => {$(
        $(#[$doc])*
        pub fn $name(&self, key: &str) -> $out {
            self.$optional(key).unwrap_or_else(|| panic!("`{key}` is not a declared, required or \
                                                          defaulted {}", stringify!($name)))
        }

        $(#[$doc])*
        /// None when it was left out.
        pub fn $optional(&self, key: &str) -> Option<$out> {
            match &self.0.get(key)?.value {
                $pattern => Some($value),
                other => panic!("`{key}` holds {other:?}, not a {}", stringify!($name)),
            }
        }
    )*};
}

impl Params {
    getters! {
        /// A yes or no.
        bool, opt_bool -> bool: Value::Bool(v) => *v;
        /// A whole number.
        int, opt_int -> i64: Value::Int(v) => *v;
        /// A whole number, none for `auto`.
        int_or_auto, opt_int_or_auto -> Option<i64>: Value::IntOrAuto(v) => *v;
        /// A number.
        float, opt_float -> f64: Value::Float(v) => *v;
        /// A text, a choice, a model's or a stage's name.
        text, opt_text -> &Arc<str>: Value::Text(v) => v;
        /// A length of time.
        duration, opt_duration -> Duration: Value::Duration(v) => *v;
        /// A size in bytes.
        bytes, opt_bytes -> u64: Value::Bytes(v) => *v;
        /// Frames a second.
        fps, opt_fps -> Fps: Value::Fps(v) => *v;
        /// Width and height.
        size, opt_size -> Option<(u32, u32)>: Value::Size(v) => *v;
        /// A secret.
        secret, opt_secret -> &Secret: Value::Secret(v) => v;
        /// A list.
        list, opt_list -> &[Value]: Value::List(v) => v;
        /// A mapping with free keys.
        map, opt_map -> &[(String, Value)]: Value::Map(v) => v;
        /// A mapping with declared keys.
        object, opt_object -> &Params: Value::Object(v) => v;
    }

    /// Puts a setting under its key.
    pub fn insert(&mut self, key: &'static str, value: Value, provenance: Provenance) {
        self.0.insert(key, Setting { value, provenance });
    }

    /// A setting with where it comes from.
    pub fn setting(&self, key: &str) -> Option<&Setting> {
        self.0.get(key)
    }

    /// All settings by key.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Setting)> {
        self.0.iter().map(|(key, setting)| (*key, setting))
    }
}

impl Value {
    /// The text inside, where it is one.
    pub fn as_text(&self) -> Option<&Arc<str>> {
        if let Value::Text(text) = self {
            Some(text)
        } else {
            None
        }
    }

    /// The mapping inside, where it has declared keys.
    pub fn as_object(&self) -> Option<&Params> {
        if let Value::Object(params) = self {
            Some(params)
        } else {
            None
        }
    }
}
