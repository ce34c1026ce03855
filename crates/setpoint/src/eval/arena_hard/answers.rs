//! The model's answers, and their styles.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use setpoint_data::{EncoderOptions, TextEncoder};
use setpoint_eval::{ArenaAnswer, ArenaMessage, ArenaQuestion, ArenaStyle, ModelIdentity, read_arena_answers};
use setpoint_transformer::GenerationConfig;

use super::{ArenaHardConfig, digest};
use crate::eval::answers::{Answerer, conversation, decoding};
use crate::eval::result;
use crate::failure::{Failure, Outcome};
use crate::session::Session;
use crate::setup;

/// Gives answers without a style theirs, if there is a tokenizer to count their tokens.
pub(super) fn with_styles(config: &ArenaHardConfig, answers: Vec<ArenaAnswer>) -> Outcome<Vec<ArenaAnswer>> {
    let Some(dir) = &config.style_tokenizer else { return Ok(answers) };
    let encoder = TextEncoder::from_dir(dir, &EncoderOptions::default())?;
    let styled = answers.into_iter().map(|mut answer| {
        if answer.metadata.is_none() {
            let tokens = encoder.encode_text(answer.text()).map_err(|error| {
                Failure::run(format!("{}'s answer to the question {}: {error}", answer.model, answer.uid))
            })?;
            answer.metadata = Some(ArenaStyle::of(answer.text(), tokens.len()));
        }
        Ok(answer)
    });
    styled.collect()
}

/// Fails unless the model has room for an answer to every prompt.
pub(super) fn check_prompts(session: &Session, config: &ArenaHardConfig, questions: &[ArenaQuestion]) -> Outcome {
    let answerer = Answerer::open(session, &config.model)?;
    prompts(config, &answerer, &answerer.settings(&config.generate)?, questions)?;
    Ok(())
}

/// Returns the prompts as tokens, each with room for an answer.
fn prompts(
    config: &ArenaHardConfig,
    answerer: &Answerer<'_>,
    settings: &GenerationConfig,
    questions: &[ArenaQuestion],
) -> Outcome<Vec<Vec<u32>>> {
    let ids: Vec<Vec<u32>> = questions
        .iter()
        .map(|question| answerer.ids(conversation([("user", question.prompt.as_str())])))
        .collect::<Outcome<_>>()?;
    let name = |row: usize| format!("question {}", questions[row].uid);
    answerer.check_room(&ids, &name, settings, config.generate.max_new_tokens)?;
    Ok(ids)
}

/// Answers every prompt, unless the folder holds the answers.
pub(super) fn generated(
    session: &Session,
    config: &ArenaHardConfig,
    questions: &[ArenaQuestion],
    dir: &Path,
) -> Outcome<(Vec<ArenaAnswer>, ModelIdentity, Value)> {
    let answerer = Answerer::open(session, &config.model)?;
    let settings = answerer.settings(&config.generate)?;
    let identity = result::identity(&config.model, config.name.as_deref(), answerer.encoder.fingerprint())?;
    let decoding = decoding(&settings, config.generate.seed);
    let folder = dir.join("model_answer");
    let path = folder.join(format!("{}.jsonl", result::file_name(&identity.name)));
    if result::is_generated(dir, &identity, &decoding, &digest(questions)) {
        log::info!("answers are taken from {}", path.display());
        return Ok((with_styles(config, read_arena_answers(&path)?)?, identity, decoding));
    }
    let ids = prompts(config, &answerer, &settings, questions)?;
    let model = answerer.load()?;
    let mut meter = answerer.meter(ids.len(), &settings);
    let texts = answerer.answer(&model, &ids, &settings, config.generate.seed, &[], &mut meter);
    meter.finish();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let answer = |(question, text): (&ArenaQuestion, String)| {
        let digest = setup::text_hash(&format!("{}\n{}\n{text}", identity.name, question.uid));
        let message = |role: &str, content: Value| ArenaMessage { role: role.to_owned(), content };
        ArenaAnswer {
            uid: question.uid.clone(),
            ans_id: digest[..22].to_owned(),
            model: identity.name.clone(),
            messages: vec![message("user", json!(question.prompt)), message("assistant", json!({ "answer": text }))],
            tstamp: Some(now),
            metadata: None,
            extra: Map::new(),
        }
    };
    let answers = with_styles(config, questions.iter().zip(texts?).map(answer).collect())?;
    // Written before the judge is asked: an evaluation that is killed there goes on from here.
    result::folder(&folder)?;
    result::write_lines(&path, &answers)?;
    result::mark_generated(dir, &identity, &decoding, &digest(questions))?;
    Ok((answers, identity, decoding))
}
