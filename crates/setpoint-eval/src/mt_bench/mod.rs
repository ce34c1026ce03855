//! MT-Bench (Zheng et al. 2023, "Judging LLM-as-a-Judge"): two-turn questions, graded by a judge.
//!
//! Files, prompts and scores are those of FastChat's `llm_judge`: answers from `gen_model_answer.py` and judgments from
//! `gen_judgment.py` are read here, and what is written here is read there. [`single_scores`] and [`pair_scores`] are
//! `show_result.py`'s.

mod files;
mod judge;
mod prompts;
mod scores;
mod verdict;

pub use files::{
    MtAnswer, MtChoice, MtPairJudgment, MtQuestion, MtReference, MtSingleJudgment, is_pairwise, read_answers,
    read_pair_judgments, read_questions, read_single_judgments,
};
pub use judge::{MtContestant, MtJudge};
pub use prompts::{MtPrompt, category_temperature, needs_reference};
pub use scores::{MtModelScores, MtPairScores, MtScore, category_of, pair_scores, single_scores};
pub use verdict::{MtWinner, parse_rating, parse_verdict};
