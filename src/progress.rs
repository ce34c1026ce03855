//! What the command prints: progress on standard error, results on standard output. Nothing else writes to either.

mod bar;
mod meter;
mod output;
mod visible;

pub use bar::bar;
use bar::drawn;
pub use meter::{Meter, Pace};
pub use output::{
    answer, complain, complete, has_colours, heed_dumb_terminals, is_closed, note, paint, say, say_json, say_painted,
    say_part, say_text, warn,
};
pub use visible::{one_line, shortened, visible};
