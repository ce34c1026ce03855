//! Several data sets in the settings: `[[data]]` in a file, and `--data` given more than once.

use toml::{Table, Value};

use super::table::{insert, remove, value_of};

/// The sections that are data sets.
const SECTIONS: [&str; 6] = ["data", "eval_data", "sft_data", "pairs", "eval.data", "eval.pairs"];
/// The list of data sets in a section.
pub(super) const SOURCES: &str = "sources";

/// Makes sections of the lists that stand in place of one: `[[data]]` is `data.sources`. A text in such a list is the path of a data set.
pub(super) fn spread(user: &mut Table) {
    for section in SECTIONS {
        let Some(Value::Array(items)) = value_of(user, section) else { continue };
        if items.is_empty() || !items.iter().all(|item| item.is_table() || item.is_str()) {
            // What is expected here is said when the settings are read.
            continue;
        }
        let of_path = |item: &Value| match item {
            Value::String(path) => Value::Table(source(path)),
            table => table.clone(),
        };
        let sources = Value::Array(items.iter().map(of_path).collect());
        insert(user, &format!("{section}.{SOURCES}"), sources);
    }
}

/// Removes what a setting of the command line replaces: the path of a single data set replaces a list of several, and the other way round.
pub(super) fn replace(user: &mut Table, key: &str) {
    for section in SECTIONS {
        let Some(name) = key.strip_prefix(section).and_then(|rest| rest.strip_prefix('.')) else { continue };
        match name {
            "path" => _ = remove(user, &format!("{section}.{SOURCES}")),
            SOURCES => _ = remove(user, &format!("{section}.path")),
            _ => {}
        }
    }
}

/// Returns the settings of a data set that is known by its path alone.
pub(super) fn source(path: &str) -> Table {
    Table::from_iter([("path".to_owned(), Value::from(path))])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread_text(text: &str) -> Table {
        let mut table: Table = text.parse().unwrap();
        spread(&mut table);
        table
    }

    #[test]
    fn a_list_in_place_of_a_section_is_its_data_sets() {
        let expected: Table =
            "[data]\nsources = [{ path = 'a.jsonl', weight = 0.75 }, { path = 'b/c', split = 'test' }]"
                .parse()
                .unwrap();
        let text = "[[data]]\npath = 'a.jsonl'\nweight = 0.75\n[[data]]\npath = 'b/c'\nsplit = 'test'";
        assert_eq!(spread_text(text), expected);
        assert_eq!(
            spread_text("eval_data = ['a', 'b']"),
            spread_text("eval_data.sources = [{ path = 'a' }, { path = 'b' }]")
        );
        assert_eq!(spread_text("eval.pairs = [{ path = 'a' }]"), spread_text("eval.pairs.sources = [{ path = 'a' }]"));
        for unchanged in ["data.path = 'a'", "data = []", "data = [1]", "other = ['a']"] {
            assert_eq!(spread_text(unchanged), unchanged.parse().unwrap());
        }
    }

    #[test]
    fn the_command_line_replaces_the_data_sets_of_the_file() {
        let mut table = spread_text("[[data]]\npath = 'a'\n[eval_data]\npath = 'e'");
        replace(&mut table, "data.path");
        assert_eq!(table, "[eval_data]\npath = 'e'".parse().unwrap());
        replace(&mut table, "eval_data.max_rows");
        assert_eq!(table, "[eval_data]\npath = 'e'".parse().unwrap());
        replace(&mut table, "eval_data.sources");
        assert_eq!(table, Table::new());
    }
}
