//! Records to token ids, exactly: one BOS, one stop token within the response, a boundary that no token spans.

mod chat;
mod control;
mod date;
mod different;
mod example;
mod export;
mod guard;
mod kept;
mod learned;
mod limits;
mod options;
mod padding;
mod places;
mod plain;
mod records;
mod rendered;
mod report;
mod special;
mod thoughts;
mod tokens;
mod variables;
mod vet;

use std::ops::Range;
use std::path::{Path, PathBuf};

pub use self::date::{PrintedDate, printed_date};
pub use self::example::{EncodedResponse, Example};
pub use self::options::{Boundary, EncodeOptions, EncoderOptions, LongRows, LostText, ResponseEnd};
pub use self::records::Encoded;
pub use self::report::{DropReason, EncodeReport, EncodeTally, Lengths, SetCounts};
pub use self::special::SpecialTokens;
use self::tokens::Tokens;
use crate::error::{EncodeProblem, Error};
use crate::hash::hash_parts;
use crate::record::{Message, Prompt, Record};
use crate::template::{
    ChatTemplate, TemplateDate, TemplateVariables, template_names, template_source, tool_template_source,
};

/// Tokenizer, chat template and special tokens of a model: turns records into examples and ids into text.
pub struct TextEncoder {
    dir: PathBuf,
    json: Vec<u8>,
    tokens: Tokens,
    template: Option<ChatTemplate>,
    /// The template for conversations with tools, where it is another one.
    tool_template: Option<ChatTemplate>,
    /// The names of the tokenizer's templates, if it has some.
    template_names: Vec<String>,
    printed_date: Option<PrintedDate>,
    variables: TemplateVariables,
    special: SpecialTokens,
    /// The tokens that the tokenizer puts before a text: BOS, or nothing.
    prefix: Vec<u32>,
    stop_ids: Vec<u32>,
    /// The token that ends an answer after which the template prints nothing.
    appended_stop: Option<u32>,
    /// BOS and stop tokens whose text, where it occurs in a message, becomes the token.
    control: Vec<(String, u32)>,
    vocab_size: usize,
}

impl std::fmt::Debug for TextEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextEncoder")
            .field("dir", &self.dir)
            .field("template", &self.template)
            .field("special", &self.special)
            .field("stop_ids", &self.stop_ids)
            .finish_non_exhaustive()
    }
}

/// A record's ids before the limits on length.
struct Parts {
    prompt: Vec<u32>,
    /// The earlier assistant turns, as ranges of the prompt.
    spans: Vec<Range<usize>>,
    /// The parts of these turns that are not learned.
    unlearned: Vec<Range<usize>>,
    responses: Vec<Vec<u32>>,
    /// Of each response, the parts that are not learned.
    thoughts: Vec<Vec<Range<usize>>>,
    /// Of each response, whether SFT learns it.
    learned: Vec<bool>,
    merged: usize,
    lost: Option<EncodeProblem>,
}

impl Parts {
    /// A prompt without any turn or response.
    fn of_prompt(prompt: Vec<u32>) -> Self {
        Self {
            prompt,
            spans: Vec::new(),
            unlearned: Vec::new(),
            responses: Vec::new(),
            thoughts: Vec::new(),
            learned: Vec::new(),
            merged: 0,
            lost: None,
        }
    }

    /// Makes the first token of the only response the prompt: nothing comes before it from which it could be predicted.
    fn begin_with_first_token(&mut self) {
        for (response, thoughts) in self.responses.iter_mut().zip(&mut self.thoughts) {
            self.prompt.push(response.remove(0));
            for thought in thoughts.iter_mut() {
                *thought = thought.start.saturating_sub(1)..thought.end - 1;
            }
            thoughts.retain(|thought| !thought.is_empty());
        }
    }
}

impl TextEncoder {
    /// Loads a tokenizer folder: `tokenizer.json`, and where they are there `tokenizer_config.json`,
    /// `special_tokens_map.json`, `chat_template.jinja`, `generation_config.json` and `config.json`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`], [`Error::Template`] or [`Error::Io`], naming the file and what is wrong with it.
    pub fn from_dir(dir: &Path, options: &EncoderOptions) -> Result<Self, Error> {
        let path = dir.join("tokenizer.json");
        let json = match setpoint_files::read_up_to(&path, vet::LONGEST_FILE as u64) {
            Ok(json) => json,
            Err(e) if e.source.kind() == std::io::ErrorKind::NotFound => {
                let reason = "not found. Expected the fast tokenizer's file; transformers' `save_pretrained` writes it, \
                              also from a SentencePiece `tokenizer.model`";
                return Err(Error::Tokenizer { path, reason: reason.into() });
            }
            Err(e) => return Err(e.into()),
        };
        let tokens = Tokens::load(&path, &json)?;
        let config = special::optional_json(&dir.join("tokenizer_config.json"))?.unwrap_or_default();
        let special = SpecialTokens::load(dir, &config, &tokens.tokenizer, options)?;
        let printed_date = date::find(dir, &config, options)?;
        let clock = printed_date.map_or_else(TemplateDate::today, |printed| printed.date).midnight();
        let compile = |source: Option<(String, String)>| {
            source.map(|(name, source)| ChatTemplate::with_clock(name, source, clock)).transpose()
        };
        let template = compile(template_source(dir, &config, &options.template)?)?;
        let tool_template = compile(tool_template_source(dir, &config, &options.template)?)?;
        let template_names = template_names(dir, &config)?;
        let variables = TemplateVariables {
            special_tokens: special.names.clone(),
            tools: None,
            extra: options.template_kwargs.clone(),
        };
        let vocab_size = tokens.tokenizer.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        let mut this = Self {
            dir: dir.to_owned(),
            json,
            tokens,
            template,
            tool_template,
            template_names,
            printed_date,
            variables,
            special,
            prefix: Vec::new(),
            stop_ids: Vec::new(),
            appended_stop: None,
            control: Vec::new(),
            vocab_size,
        };
        this.prefix = this.find_prefix()?;
        this.stop_ids = this.find_stops();
        this.appended_stop = this.find_appended_stop();
        this.control = this.find_control();
        Ok(this)
    }

    /// The chat template, if there is one.
    #[must_use]
    pub fn template(&self) -> Option<&ChatTemplate> {
        self.template.as_ref()
    }

    /// The date that the chat template prints, if it prints one.
    #[must_use]
    pub fn printed_date(&self) -> Option<PrintedDate> {
        self.printed_date
    }

    /// The special tokens.
    #[must_use]
    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.special
    }

    /// The tokens that end a generation, the template's own first.
    #[must_use]
    pub fn stop_ids(&self) -> &[u32] {
        &self.stop_ids
    }

    /// The dropout of the file's BPE model, by which a text would have other tokens each time. It is switched off.
    #[must_use]
    pub fn dropout(&self) -> Option<f32> {
        self.tokens.dropout
    }

    /// One more than the largest id.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Checks that a model has an embedding for every token. A model may have more (padded) rows than the tokenizer has tokens.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] with both numbers.
    pub fn check_vocabulary(&self, model_vocab_size: usize) -> Result<(), Error> {
        if self.vocab_size <= model_vocab_size {
            return Ok(());
        }
        Err(self.failed(format!(
            "it has ids up to {} but the model's vocab_size is {model_vocab_size}: they do not belong together. Use the model's own tokenizer",
            self.vocab_size - 1
        )))
    }

    /// A hash of everything that decides the ids of a text besides the text: tokenizer, template, its variables, special
    /// tokens.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let variables =
            serde_json::json!([self.variables.special_tokens, self.variables.extra, self.prefix, self.stop_ids]);
        let source = self.template.as_ref().map_or("", ChatTemplate::source);
        let mut parts = vec![self.json.as_slice(), source.as_bytes()];
        let variables = variables.to_string();
        parts.push(variables.as_bytes());
        parts.extend(self.tool_template.as_ref().map(|t| t.source().as_bytes()));
        let date = self.printed_date.map(|printed| printed.date.to_string());
        parts.extend(date.as_ref().map(String::as_bytes));
        hash_parts("setpoint tokenizer 1", &parts)
    }

    /// Renders a conversation with the chat template.
    ///
    /// # Errors
    /// [`EncodeProblem::NoTemplate`] or [`EncodeProblem::TemplateFailed`].
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, EncodeProblem> {
        self.render_with(messages, add_generation_prompt, &self.variables)
    }

    fn render_with(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        variables: &TemplateVariables,
    ) -> Result<String, EncodeProblem> {
        let template = self.template_for(variables)?;
        template
            .render_turns(messages, add_generation_prompt, variables)
            .map_err(|e| EncodeProblem::TemplateFailed { template: template.name().to_owned(), reason: e.to_string() })
    }

    /// The ids of a prompt, as a generation starts from them: those of [`Example::prompt`], save where an earlier turn was
    /// tokenised apart for its span or the row brought tools of its own.
    ///
    /// # Errors
    /// An [`EncodeProblem`] when the template refuses or there are no tokens.
    pub fn encode_prompt(&self, prompt: &Prompt) -> Result<Vec<u32>, EncodeProblem> {
        self.prompt_with(prompt, &self.variables)
    }

    /// The ids of a record's prompt, rendered with the record's own tools and template arguments.
    ///
    /// # Errors
    /// As [`TextEncoder::encode_prompt`].
    pub fn encode_prompt_of(&self, record: &Record) -> Result<Vec<u32>, EncodeProblem> {
        let variables = self.variables_of(record)?;
        self.prompt_with(&record.prompt, &variables)
    }

    fn prompt_with(&self, prompt: &Prompt, variables: &TemplateVariables) -> Result<Vec<u32>, EncodeProblem> {
        let ids = match prompt {
            Prompt::Text(text) => self.plain_prompt(text)?,
            Prompt::Messages(messages) => self.encode_text(&self.render_with(messages, true, variables)?)?,
        };
        if ids.is_empty() { Err(EncodeProblem::EmptyPrompt) } else { Ok(ids) }
    }

    /// Returns the ids of a text, special tokens that it spells included, and none that are not in it: no BOS, no stop token.
    ///
    /// # Errors
    /// [`EncodeProblem::Tokenizer`].
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>, EncodeProblem> {
        Ok(self.tokens.encode(text)?.0)
    }

    /// The text of ids, special tokens included.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the tokenizer's decoder fails. Ids beyond the vocabulary have no text.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        self.tokens.decode(ids, false).map_err(|reason| self.failed(reason))
    }

    /// The text of ids without special tokens: what a reader of a response wants to see.
    ///
    /// # Errors
    /// As [`TextEncoder::decode`].
    pub fn decode_visible(&self, ids: &[u32]) -> Result<String, Error> {
        self.tokens.decode(ids, true).map_err(|reason| self.failed(reason))
    }

    pub(crate) fn tokenizer(&self) -> &tokenizers::Tokenizer {
        &self.tokens.tokenizer
    }

    pub(crate) fn failed(&self, reason: String) -> Error {
        Error::Tokenizer { path: self.dir.join("tokenizer.json"), reason }
    }
}
