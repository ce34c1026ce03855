//! Templates of this project's own writing, one for each family.
//!
//! For conversations of system, user and assistant turns they render what the models' official templates render. They know
//! nothing of tools: for those, use the template that comes with the model.

/// A template that comes with this crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BuiltIn {
    /// `<|im_start|>role … <|im_end|>`: EuroLLM, Qwen3's instruct models and many others.
    ChatMl,
    /// ChatML with Qwen2.5's default system turn.
    Qwen2_5,
    /// Llama 3.
    Llama3,
    /// Llama 3.1 and 3.3: a system turn with dates always comes first; `date_string` defaults to 26 Jul 2024.
    Llama3_1,
    /// Llama 3.2: as 3.1, but `date_string` defaults to today.
    Llama3_2,
    /// Gemma 1 and 2. Refuses system turns, as the official one does.
    Gemma,
    /// Phi-3.
    Phi3,
    /// Zephyr and TinyLlama chat: `<|user|>` … with the tokenizer's own EOS.
    Zephyr,
    /// `User: … Assistant: …` in plain words with the tokenizer's BOS and EOS: for base models without control tokens.
    Plain,
}

impl BuiltIn {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::ChatMl,
        Self::Qwen2_5,
        Self::Llama3,
        Self::Llama3_1,
        Self::Llama3_2,
        Self::Gemma,
        Self::Phi3,
        Self::Zephyr,
        Self::Plain,
    ];

    /// The name in configuration files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ChatMl => "chatml",
            Self::Qwen2_5 => "qwen2_5",
            Self::Llama3 => "llama3",
            Self::Llama3_1 => "llama3_1",
            Self::Llama3_2 => "llama3_2",
            Self::Gemma => "gemma",
            Self::Phi3 => "phi3",
            Self::Zephyr => "zephyr",
            Self::Plain => "plain",
        }
    }

    /// The template of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name() == name)
    }

    /// The names, for messages.
    pub(crate) fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    /// BOS and EOS of the family's tokenizers, for a tokenizer folder that does not name its own.
    pub(crate) fn special_tokens(self) -> (Option<&'static str>, Option<&'static str>) {
        match self {
            Self::ChatMl | Self::Qwen2_5 => (None, Some("<|im_end|>")),
            Self::Llama3 | Self::Llama3_1 | Self::Llama3_2 => (Some("<|begin_of_text|>"), Some("<|eot_id|>")),
            Self::Gemma => (Some("<bos>"), Some("<eos>")),
            Self::Phi3 => (Some("<s>"), Some("<|endoftext|>")),
            Self::Zephyr | Self::Plain => (None, None),
        }
    }

    /// The template's text.
    #[must_use]
    pub fn source(self) -> &'static str {
        match self {
            Self::ChatMl => CHATML,
            Self::Qwen2_5 => QWEN2_5,
            Self::Llama3 => LLAMA3,
            Self::Llama3_1 => LLAMA3_1,
            Self::Llama3_2 => LLAMA3_2,
            Self::Gemma => GEMMA,
            Self::Phi3 => PHI3,
            Self::Zephyr => ZEPHYR,
            Self::Plain => PLAIN,
        }
    }
}

const CHATML: &str = r"
{%- for turn in messages -%}
    {{ '<|im_start|>' ~ turn.role ~ '\n' ~ turn.content ~ '<|im_end|>\n' }}
{%- endfor -%}
{{ '<|im_start|>assistant\n' if add_generation_prompt else '' }}";

const QWEN2_5: &str = r"
{%- if not messages or messages[0].role != 'system' -%}
    {{ '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n' }}
{%- endif -%}
{%- for turn in messages -%}
    {{ '<|im_start|>' ~ turn.role ~ '\n' ~ turn.content ~ '<|im_end|>\n' }}
{%- endfor -%}
{{ '<|im_start|>assistant\n' if add_generation_prompt else '' }}";

const LLAMA3: &str = r"
{%- for turn in messages -%}
    {{ (bos_token if loop.first else '') ~ '<|start_header_id|>' ~ turn.role ~ '<|end_header_id|>\n\n' ~ turn.content | trim ~ '<|eot_id|>' }}
{%- endfor -%}
{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' if add_generation_prompt else '' }}";

const LLAMA3_1: &str = r"
{%- set today = date_string if date_string is defined else '26 Jul 2024' -%}
{%- set has_system = messages and messages[0].role == 'system' -%}
{{ bos_token ~ '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: ' ~ today ~ '\n\n' }}
{{- messages[0].content | trim if has_system else '' }}
{{- '<|eot_id|>' }}
{%- for turn in (messages[1:] if has_system else messages) -%}
    {{ '<|start_header_id|>' ~ turn.role ~ '<|end_header_id|>\n\n' ~ turn.content | trim ~ '<|eot_id|>' }}
{%- endfor -%}
{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' if add_generation_prompt else '' }}";

const LLAMA3_2: &str = r"
{%- set today = date_string if date_string is defined else strftime_now('%d %b %Y') -%}
{%- set has_system = messages and messages[0].role == 'system' -%}
{{ bos_token ~ '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: ' ~ today ~ '\n\n' }}
{{- messages[0].content | trim if has_system else '' }}
{{- '<|eot_id|>' }}
{%- for turn in (messages[1:] if has_system else messages) -%}
    {{ '<|start_header_id|>' ~ turn.role ~ '<|end_header_id|>\n\n' ~ turn.content | trim ~ '<|eot_id|>' }}
{%- endfor -%}
{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' if add_generation_prompt else '' }}";

const GEMMA: &str = r"
{{- bos_token }}
{%- for turn in messages -%}
    {%- if turn.role == 'system' -%}
        {{ raise_exception('this template has no system turn: move its text into the first user turn') }}
    {%- endif -%}
    {%- if (turn.role == 'user') != loop.index is odd -%}
        {{ raise_exception('user and assistant must take turns, the user first') }}
    {%- endif -%}
    {{ '<start_of_turn>' ~ ('model' if turn.role == 'assistant' else turn.role) ~ '\n' ~ turn.content | trim ~ '<end_of_turn>\n' }}
{%- endfor -%}
{{ '<start_of_turn>model\n' if add_generation_prompt else '' }}";

const PHI3: &str = r"
{%- for turn in messages if turn.role in ['system', 'user', 'assistant'] -%}
    {{ '<|' ~ turn.role ~ '|>\n' ~ turn.content ~ '<|end|>\n' }}
{%- endfor -%}
{{ '<|assistant|>\n' if add_generation_prompt else eos_token }}";

const ZEPHYR: &str = r"
{%- for turn in messages if turn.role in ['system', 'user', 'assistant'] -%}
    {{ '<|' ~ turn.role ~ '|>\n' ~ turn.content ~ eos_token ~ '\n' }}
{%- endfor -%}
{{ '<|assistant|>\n' if add_generation_prompt else '' }}";

const PLAIN: &str = r"
{{- bos_token }}
{%- for turn in messages -%}
    {%- if turn.role == 'assistant' -%}
        {{ 'Assistant: ' ~ turn.content | trim ~ eos_token ~ '\n' }}
    {%- else -%}
        {{ turn.role | capitalize ~ ': ' ~ turn.content | trim ~ '\n' }}
    {%- endif -%}
{%- endfor -%}
{{ 'Assistant: ' if add_generation_prompt else '' }}";

#[cfg(test)]
mod tests {
    use super::super::{ChatTemplate, TemplateVariables};
    use super::*;
    use crate::record::Message;
    use crate::test_data::test_data;

    fn variables() -> TemplateVariables {
        let tokens = [("bos_token", "<B>"), ("eos_token", "<E>")];
        let special_tokens = tokens.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        TemplateVariables { special_tokens, ..TemplateVariables::default() }
    }

    #[test]
    fn all_compile_and_have_distinct_names() {
        for template in BuiltIn::ALL {
            assert_eq!(ChatTemplate::built_in(template).name(), template.name());
            assert_eq!(BuiltIn::from_name(template.name()), Some(template));
        }
    }

    #[test]
    fn plain() {
        let template = ChatTemplate::built_in(BuiltIn::Plain);
        let chat = [Message::system("S "), Message::user("U"), Message::assistant("A")];
        assert_eq!(template.render(&chat, false, &variables()).unwrap(), "<B>System: S\nUser: U\nAssistant: A<E>\n");
        assert_eq!(template.render(&chat[1..2], true, &variables()).unwrap(), "<B>User: U\nAssistant: ");
    }

    #[test]
    fn render_what_the_official_templates_render() {
        let Some(data) = test_data("chat_templates") else { return };
        let tinyllama = data.join("../tokenizers/tinyllama/tokenizer_config.json");
        let tinyllama: serde_json::Value = serde_json::from_slice(&std::fs::read(tinyllama).unwrap()).unwrap();
        let official = |file: &str| std::fs::read_to_string(data.join(file)).unwrap();
        let pairs = [
            (BuiltIn::ChatMl, official("qwen3_instruct_2507.jinja")),
            (BuiltIn::Qwen2_5, official("qwen2_5.jinja")),
            (BuiltIn::Llama3, official("llama3.jinja")),
            (BuiltIn::Llama3_1, official("llama3_1.jinja")),
            (BuiltIn::Llama3_2, official("llama3_2.jinja")),
            (BuiltIn::Gemma, official("gemma.jinja")),
            (BuiltIn::Phi3, official("phi3.jinja")),
            (BuiltIn::Zephyr, tinyllama["chat_template"].as_str().unwrap().to_owned()),
        ];
        let (s, u, a) = (Message::system(" Sé <b> "), Message::user("\n U\tu "), Message::assistant("A a\n"));
        let chats = [
            vec![u.clone()],
            vec![u.clone(), a.clone()],
            vec![s.clone(), u.clone(), a.clone()],
            vec![s.clone(), u.clone(), a.clone(), u.clone()],
            vec![u.clone(), a.clone(), u.clone(), a.clone()],
            vec![u.clone(), s, a, u],
        ];
        for (built_in, official) in pairs {
            let ours = ChatTemplate::built_in(built_in);
            let official = ChatTemplate::new("official", official).unwrap();
            let mut rendered = 0;
            for chat in &chats {
                for prompt in [false, true] {
                    let (ours, official) =
                        (ours.render(chat, prompt, &variables()), official.render(chat, prompt, &variables()));
                    match (ours, official) {
                        (Ok(ours), Ok(official)) => {
                            assert_eq!(ours, official, "{}", built_in.name());
                            rendered += 1;
                        }
                        (ours, official) => {
                            assert_eq!(ours.is_err(), official.is_err(), "{}: {ours:?} {official:?}", built_in.name());
                        }
                    }
                }
            }
            assert!(rendered >= 6, "{}: {rendered}", built_in.name());
        }
    }
}
