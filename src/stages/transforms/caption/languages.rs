//! Languages by their names, as a prompt says them to a model.

/// English names by the first subtag of a BCP 47 tag.
const NAMES: &[(&str, &str)] = &[
    ("ar", "Arabic"),
    ("bg", "Bulgarian"),
    ("bn", "Bengali"),
    ("ca", "Catalan"),
    ("cs", "Czech"),
    ("da", "Danish"),
    ("de", "German"),
    ("el", "Greek"),
    ("en", "English"),
    ("es", "Spanish"),
    ("et", "Estonian"),
    ("fa", "Persian"),
    ("fi", "Finnish"),
    ("fr", "French"),
    ("he", "Hebrew"),
    ("hi", "Hindi"),
    ("hr", "Croatian"),
    ("hu", "Hungarian"),
    ("id", "Indonesian"),
    ("it", "Italian"),
    ("ja", "Japanese"),
    ("ko", "Korean"),
    ("lt", "Lithuanian"),
    ("lv", "Latvian"),
    ("ms", "Malay"),
    ("nb", "Norwegian"),
    ("nl", "Dutch"),
    ("no", "Norwegian"),
    ("pl", "Polish"),
    ("pt", "Portuguese"),
    ("ro", "Romanian"),
    ("ru", "Russian"),
    ("sk", "Slovak"),
    ("sl", "Slovenian"),
    ("sr", "Serbian"),
    ("sv", "Swedish"),
    ("sw", "Swahili"),
    ("ta", "Tamil"),
    ("te", "Telugu"),
    ("th", "Thai"),
    ("tl", "Tagalog"),
    ("tr", "Turkish"),
    ("uk", "Ukrainian"),
    ("ur", "Urdu"),
    ("vi", "Vietnamese"),
    ("zh", "Chinese"),
];

/// The name of a language with its other subtags, `Portuguese (BR)` for `pt-BR`; the tag itself
/// where it has no name here.
pub(super) fn name(tag: &str) -> String {
    let (first, rest) = tag
        .split_once('-')
        .map_or((tag, None), |(first, rest)| (first, Some(rest)));
    match (
        NAMES
            .iter()
            .find(|(code, _)| code.eq_ignore_ascii_case(first)),
        rest,
    ) {
        (Some((_, name)), None) => (*name).to_owned(),
        (Some((_, name)), Some(rest)) => format!("{name} ({rest})"),
        (None, _) => tag.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_become_names_where_they_have_one() {
        assert_eq!(
            ["de", "pt-BR", "DE", "tlh", ""].map(name),
            ["German", "Portuguese (BR)", "German", "tlh", ""]
        );
        assert!(NAMES.is_sorted());
    }
}
