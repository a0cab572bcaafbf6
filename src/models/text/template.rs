//! Chat templates: Jinja, rendered as transformers renders it.

use crate::error::{Error, Result};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, Value, context};

const NAME: &str = "chat";

/// A model's chat template.
#[derive(Debug)]
pub struct Template {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

/// One message of a chat.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// `system`, `user` or `assistant`.
    pub role: &'a str,
    /// Its text.
    pub content: &'a str,
}

impl Template {
    /// Compiles the template.
    ///
    /// # Errors
    /// Model, where it is not valid Jinja.
    pub fn build(source: &str, bos: &str, eos: &str) -> Result<Self> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        environment
            .set_syntax(syntax.map_err(|e| Error::bug("the syntax of chat templates").because(e))?);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function(
            "raise_exception",
            |message: String| -> Result<Value, minijinja::Error> {
                Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
            },
        );
        environment.add_function(
            "strftime_now",
            |format: String| -> Result<String, minijinja::Error> {
                jiff::fmt::strtime::format(&format, &jiff::ZonedDateTime::now()).map_err(|e| {
                    minijinja::Error::new(
                        ErrorKind::InvalidOperation,
                        format!("strftime_now({format:?}): {e}"),
                    )
                })
            },
        );
        environment
            .add_template_owned(NAME, source.to_owned())
            .map_err(|e| Error::model(format!("the chat template is not valid Jinja: {e:#}")))?;
        Ok(Self {
            environment,
            bos: bos.to_owned(),
            eos: eos.to_owned(),
        })
    }

    /// The chat as the model reads it, open for the assistant's answer, which begins without
    /// thoughts where the template has a choice.
    ///
    /// # Errors
    /// Model, where the template refuses the chat.
    pub fn render(&self, messages: &[Message<'_>]) -> Result<String> {
        let messages: Vec<Value> = messages
            .iter()
            .map(|m| context! { role => m.role, content => m.content })
            .collect();
        self.environment
            .get_template(NAME)
            .and_then(|template| {
                template.render(context! {
                    messages,
                    bos_token => self.bos.as_str(),
                    eos_token => self.eos.as_str(),
                    add_generation_prompt => true,
                    enable_thinking => false,
                    tools => (),
                    documents => (),
                })
            })
            .map_err(|e| Error::model(format!("the chat template refuses the chat: {e:#}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> Result<String> {
        let chat = [
            Message {
                role: "system",
                content: " Be <brief> & clear. ",
            },
            Message {
                role: "user",
                content: "hi",
            },
        ];
        Template::build(source, "<s>", "</s>")?.render(&chat)
    }

    #[test]
    fn blocks_leave_no_lines_behind() {
        let source = "{{ bos_token }}\n{% for message in messages %}\n    {% if message.role == \
                      'user' %}\nU:{{ message['content'] }}{{ eos_token }}\n    {% endif %}\n{% \
                      endfor %}\n{% if add_generation_prompt %}\nA:\n{% endif %}\n";
        assert_eq!(render(source).unwrap(), "<s>\nU:hi</s>\nA:\n");
    }

    #[test]
    fn python_methods_and_loop_controls_work_and_nothing_is_escaped() {
        let source = "{%- for m in messages -%}{{ m.content.strip() | trim }}{% if \
                      m['role'].startswith('sys') %}{% break %}{% endif %}{%- endfor -%}";
        assert_eq!(render(source).unwrap(), "Be <brief> & clear.");
    }

    #[test]
    fn what_templates_of_the_field_are_made_of_is_known() {
        // Seen in those of Mistral: a name that a block sets for those after it, users picked out
        // of the messages, counts in a namespace.
        let source = "{%- if messages[0]['role'] == 'system' %}{%- set told = \
                      messages[0]['content'] %}{%- set chat = messages[1:] %}{%- else %}{%- set \
                      chat = messages %}{%- endif %}{%- set users = chat | selectattr('role', \
                      'equalto', 'user') | list %}{%- set ns = namespace() %}{%- set ns.index = 0 \
                      %}{%- for m in chat %}{%- if (m['role'] == 'user') != (ns.index % 2 == 0) \
                      %}{{- raise_exception('turns') }}{%- endif %}{%- set ns.index = ns.index + \
                      1 %}{%- endfor %}{{- told is defined and told.strip() }}|{{ users | length \
                      }}|{{ ns.index }}|{{ users[-1] == chat[-1] }}";
        assert_eq!(render(source).unwrap(), "Be <brief> & clear.|1|1|True");
        // Seen in those of Qwen: messages from the last to the first, and whether the model thinks.
        let source = "{%- set ns = namespace(open=true, last=messages|length - 1) %}{%- for m in \
                      messages[::-1] %}{%- set index = (messages|length - 1) - loop.index0 %}{%- \
                      if ns.open and m.role == 'user' and not(m.content.startswith('<r>') and \
                      m.content.endswith('</r>')) %}{%- set ns.open = false %}{%- set ns.last = \
                      index %}{%- endif %}{%- endfor %}{{- ns.last }}{%- if enable_thinking is \
                      defined and enable_thinking is false %}{{- '|' + \
                      'a</t>b'.split('</t>')[-1].lstrip('\\n') }}{%- endif %}";
        assert_eq!(render(source).unwrap(), "1|b");
    }

    #[test]
    fn absent_tools_are_none() {
        assert_eq!(
            render("{% if tools is none and not documents %}none{% endif %}{{ nothing }}").unwrap(),
            "none"
        );
    }

    #[test]
    fn what_the_template_raises_is_the_models_error() {
        let error = render("{{ raise_exception('roles must alternate') }}").unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Model);
        assert!(error.message().contains("roles must alternate"), "{error}");
        assert!(
            render("{% if %}")
                .unwrap_err()
                .message()
                .contains("not valid Jinja")
        );
    }

    #[test]
    fn dates_are_rendered_and_bad_formats_refused() {
        let year: i32 = render("{{ strftime_now('%Y') }}").unwrap().parse().unwrap();
        assert!(year >= 2025);
        assert!(render("{{ strftime_now('%!') }}").is_err());
    }
}
