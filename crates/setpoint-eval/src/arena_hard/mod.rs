//! Arena-Hard-Auto v2.0 (Li et al. 2024): hard prompts and creative writing, judged against a baseline's answers.
//!
//! Files, prompts and scores are those of `lmarena/arena-hard-auto`: answers of its `gen_answer.py` and judgments of its `gen_judgment.py` are read
//! here, and what is written here is read there. [`ArenaJudge`] shows each pair in both orders, [`arena_scores`] are the figures of
//! `show_result.py`, and [`arena_style_scores`] those with `--control-features markdown length`.

mod bradley_terry;
mod files;
mod judge;
mod prompts;
mod scores;
mod style;
mod verdict;

pub use files::{
    ArenaAnswer, ArenaGame, ArenaJudgment, ArenaMessage, ArenaQuestion, read_arena_answers, read_arena_judgments,
    read_arena_questions,
};
pub use judge::{ArenaJudge, ArenaJudging};
pub use prompts::{arena_baseline, arena_categories};
pub use scores::{ArenaScore, ArenaStyleScores, arena_preference, arena_scores, arena_style_scores};
pub use style::ArenaStyle;
pub use verdict::ArenaVerdict;
