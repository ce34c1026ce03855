//! The command's output: progress on standard error, results on standard output. Nothing else writes to either.

mod bar;
mod logger;
mod output;
mod table;
mod wrap;

pub use bar::bar;
pub use logger::{install_logger, take_warnings};
pub use output::{
    answer, complain, complete, has_colours, heed_dumb_terminals, is_closed, note, paint, say, say_file, say_json,
    say_painted, say_part, say_text, warn,
};
pub use table::{drawn, narrowed, width};
pub use wrap::cell;
