//! The reasons for which a record cannot become tokens.

/// The reason for which a record cannot be turned into tokens exactly.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeProblem {
    /// The record is a conversation and there is no template.
    #[error(
        "the record is a conversation but the tokenizer has no chat template. Set `model.template`: {}",
        templates(fitting)
    )]
    NoTemplate {
        /// The built-in templates that end a turn with a token of the tokenizer.
        fitting: Vec<&'static str>,
    },
    /// The tokenizer has several templates, none of them for this conversation.
    #[error(
        "the tokenizer has the chat templates {names}, but none named `default` for a conversation without tools. Choose one of them (set `model.template`)"
    )]
    NoDefaultTemplate {
        /// The templates' names.
        names: String,
    },
    /// A column that the template is given holds something else.
    #[error("`{column}`: expected {expected}, found {found}. Fix the row, or remove the column")]
    BadColumn {
        /// The column, with an index where it is a list.
        column: String,
        /// The expected content.
        expected: &'static str,
        /// The value found.
        found: String,
    },
    /// The template raised an error on this conversation.
    #[error("chat template `{template}` refused the conversation: {reason}")]
    TemplateFailed {
        /// The template.
        template: String,
        /// Its reason.
        reason: String,
    },
    /// The rendered prompt is not the beginning of the rendered conversation.
    #[error(
        "chat template `{template}` renders the prompt differently once the {turn} is there: the conversation continues with {found:?} where the prompt has {expected:?}. Set a variable of the template so that both agree (as in `model.template_kwargs.enable_thinking=false`), or take the boundary from the rendered conversation (`encode.boundary=\"rendered\"`), or use a template that only appends (`model.template`)"
    )]
    PromptNotPrefix {
        /// The template.
        template: String,
        /// The turn that follows the prompt.
        turn: String,
        /// The text of the prompt from the first difference on (an excerpt).
        expected: String,
        /// The text of the conversation at the same place (an excerpt).
        found: String,
    },
    /// A text contains the text of a control token.
    #[error(
        "{place} contains `{token}`, the text of a control token: the example would have two. Remove it from the text (turns that a chat template has rendered are given as `messages`, unrendered), or drop the row (`encode.on_bad_row = \"drop\"`)"
    )]
    ControlTokenInText {
        /// The place, such as "message 2 (user)".
        place: String,
        /// The token's text.
        token: String,
    },
    /// No stop token follows an assistant turn.
    #[error(
        "no stop token after the {turn}: looked for {expected}. {}ame the token that ends it as `eos_token` in the model's tokenizer_config.json",
        fitting.as_ref().map_or("N".to_owned(), |fitting| {
            format!("Use a template that prints one (`model.template`): {}. Or n", templates(fitting))
        })
    )]
    NoStop {
        /// The turn.
        turn: String,
        /// The stop tokens that were looked for.
        expected: String,
        /// The built-in templates that end a turn with a token of the tokenizer; `None` for plain text, which needs no template.
        fitting: Option<Vec<&'static str>>,
    },
    /// A turn that is to be trained has neither text nor a tool call.
    #[error(
        "the {turn} has neither text nor a tool call: there is nothing to learn from it. Give it text, or leave such rows out (`encode.on_bad_row = \"drop\"`)"
    )]
    EmptyTurn {
        /// The turn.
        turn: String,
    },
    /// A message does not say clearly whether it is trained.
    #[error(
        "`{field}` of the {turn}: expected {expected}, found {found}. Fix the row, or leave such rows out (`encode.on_bad_row = \"drop\"`)"
    )]
    BadWeight {
        /// The turn.
        turn: String,
        /// The field.
        field: &'static str,
        /// The values it may have.
        expected: &'static str,
        /// The value found.
        found: String,
    },
    /// No turn of a conversation is to be trained.
    #[error(
        "no turn of the conversation is trained: all assistant turns are excluded (such as by `\"weight\": 0`). Remove the row, or leave such rows out (`encode.on_bad_row = \"drop\"`)"
    )]
    NothingLearned,
    /// The template does not print all that a turn says.
    #[error(
        "chat template `{template}` leaves out or rewrites the {what} of the {turn}: {text:?} is not in the rendered turn, so it would not be learned. Use a template that keeps it (`model.template`), {}exclude the turn from SFT (`\"weight\": 0` in its message), or leave such rows out (`encode.on_bad_row = \"drop\"`)",
        if *what == "thoughts" { "learn the answer alone (`encode.train_on_thoughts=false` of SFT), " } else { "" }
    )]
    Lost {
        /// The template.
        template: String,
        /// The turn.
        turn: String,
        /// "text", "thoughts" or "tool call".
        what: &'static str,
        /// The part that is missing (an excerpt).
        text: String,
    },
    /// A turn whose thoughts are not learned has no answer.
    #[error(
        "the {turn} has thoughts but no answer, and `encode.train_on_thoughts` is false: there is nothing to learn from it. Set it to true, give the turn an answer, or leave such rows out (`encode.on_bad_row = \"drop\"`)"
    )]
    OnlyThoughts {
        /// The turn.
        turn: String,
    },
    /// A template prints thoughts without marks by which they can be told from the answer.
    #[error(
        "chat template `{template}` prints the thoughts of the {turn} without marks that tell them from the answer (such as `<think>` and `</think>`), so they cannot be left out of the training. Set `encode.train_on_thoughts` to true, or use a template that marks them (`model.template`)"
    )]
    UnmarkedThoughts {
        /// The template.
        template: String,
        /// The turn.
        turn: String,
    },
    /// Two different responses have the same tokens.
    #[error(
        "answers {first} and {second} differ but become the same tokens: the chat template or the tokenizer drops their difference, so it cannot be learned. Use a template that keeps it (`model.template`), or leave such rows out (`encode.on_bad_row = \"drop\"`)"
    )]
    SameTokens {
        /// Index of a response.
        first: usize,
        /// Index of another one.
        second: usize,
    },
    /// A response has no tokens before its stop token.
    #[error("response {response} has no tokens before its stop token. Remove the row")]
    EmptyResponse {
        /// Index of the response.
        response: usize,
    },
    /// A prompt has no tokens.
    #[error(
        "the prompt has no tokens, so the response's first token has no context. Give a prompt, or a tokenizer that adds a BOS token"
    )]
    EmptyPrompt,
    /// A token spans the boundary between prompt and response.
    #[error(
        "tokenising the joined text merges {token:?} across the boundary between prompt and response {response}. Set `encode.boundary = \"separate\"`, or end the prompt where a token ends"
    )]
    Merged {
        /// Index of the response.
        response: usize,
        /// The text around the boundary.
        token: String,
    },
    /// A row is longer than allowed and the policy is to stop.
    #[error(
        "{what} has {found} tokens, more than the {limit} that are allowed. Raise `{setting}`, or set `encode.long_rows` to \"drop\" or \"cut_prompt\""
    )]
    TooLong {
        /// The name of the part that is too long.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The limit.
        limit: usize,
        /// The setting that holds the limit.
        setting: &'static str,
    },
    /// A row is longer than the model can read and the policy is to stop.
    #[error(
        "prompt and longest response together have {found} tokens, more than the {positions} positions of the model (max_position_embeddings). Shorten the row, use another model, or set `encode.long_rows` to \"drop\" or \"cut_prompt\""
    )]
    BeyondModel {
        /// The row's length.
        found: usize,
        /// The model's positions.
        positions: usize,
    },
    /// A text is longer than any context, and its tokens would take gigabytes to find.
    #[error(
        "a text of {bytes} bytes, more than the {most} that are tokenised at once. Shorten the row, or set `encode.long_rows` to \"drop\""
    )]
    TextTooLong {
        /// The text's length.
        bytes: usize,
        /// The limit.
        most: usize,
    },
    /// The tokenizer itself failed.
    #[error("the tokenizer failed: {reason}")]
    Tokenizer {
        /// Its reason.
        reason: String,
    },
}

/// Says which templates there are for a tokenizer.
fn templates(fitting: &[&str]) -> String {
    let names: Vec<String> = fitting.iter().map(|name| format!("`{name}`")).collect();
    let fit = match names.as_slice() {
        [] => {
            return "none of the built-in ones ends a turn with a token of this tokenizer, so give a .jinja file"
                .into();
        }
        [only] => format!("{only} fits"),
        [most @ .., last] => format!("{} and {last} fit", most.join(", ")),
    };
    format!("of the built-in templates, {fit} this tokenizer; a .jinja file is given by its path")
}
