//! The built-in templates that messages name for a tokenizer.

use setpoint_data::{BuiltIn, EncodeOptions, Message, Prompt, Record, Response, TemplateChoice};

use crate::common::small_encoder;

#[test]
fn the_built_in_templates_that_are_named_are_those_that_serve() {
    let turns = [Message::user("u"), Message::assistant("a"), Message::user("u")];
    let record = Record::new(Prompt::Messages(turns.to_vec()), vec![Response::new("a")]);
    let plain = small_encoder(TemplateChoice::Own);
    let named = plain.encode(0, &record, &EncodeOptions::default()).unwrap_err().to_string();
    let options = EncodeOptions { assistant_spans: true, ..EncodeOptions::default() };
    let mut serve = 0;
    for template in BuiltIn::ALL {
        let encoded = small_encoder(TemplateChoice::BuiltIn(template)).encode(0, &record, &options);
        serve += usize::from(encoded.is_ok());
        assert_eq!(named.contains(&format!("`{}`", template.name())), encoded.is_ok(), "{named}: {encoded:?}");
        if let Err(error) = encoded {
            let names = "Use a template that prints one (`model.template`): of the built-in templates, ";
            assert!(error.to_string().contains(names), "{error}");
        }
    }
    assert!(0 < serve && serve < BuiltIn::ALL.len(), "{named}");
}
