//! What texts and attributes of `src/` may not contain.

use proc_macro2::TokenTree;

use crate::files::Crate;

/// Attributes that hide code nobody uses.
const HIDING: [&str; 2] = ["dead_code", "unused_imports"];

#[test]
fn only_cli_names_flags() {
    let mut wrong = Vec::new();
    for (module, file) in Crate::read().files {
        if module.first().is_some_and(|top| top == "cli") {
            continue;
        }
        each_token(&file.tokens, &mut |token| {
            let TokenTree::Literal(literal) = token else { return };
            let text = literal.to_string();
            // What cargo is given in an example is not ours.
            if names_a_flag(&text) && !text.contains("cargo ") {
                wrong.push(format!("{}: {text}", file.path.display()));
            }
        });
    }
    assert!(wrong.is_empty(), "a library's texts name a flag:\n{}", wrong.join("\n"));
}

#[test]
fn nothing_hides_unused_code() {
    let mut wrong = Vec::new();
    for file in Crate::read().files.into_values() {
        each_token(&file.tokens, &mut |token| {
            if let TokenTree::Ident(lint) = token
                && HIDING.iter().any(|hiding| lint == hiding)
            {
                wrong.push(format!("{}: {lint}", file.path.display()));
            }
        });
    }
    assert!(wrong.is_empty(), "unused code is hidden:\n{}", wrong.join("\n"));
}

fn each_token(tokens: &[TokenTree], act: &mut impl FnMut(&TokenTree)) {
    for token in tokens {
        if let TokenTree::Group(group) = token {
            each_token(&group.stream().into_iter().collect::<Vec<_>>(), act);
        }
        act(token);
    }
}

/// Whether the text has `--` and a lower-case letter, at the beginning of a word.
fn names_a_flag(text: &str) -> bool {
    text.match_indices("--").any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + 2..].chars().next();
        before.is_none_or(|c| !c.is_alphanumeric() && c != '-') && after.is_some_and(|c| c.is_ascii_lowercase())
    })
}
