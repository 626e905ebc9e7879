//! A command line without a shell.

use std::{fmt, str::FromStr};

/// A program and its arguments, split into words as a shell splits them: by spaces, with `'..'`, `".."` and `\`. The first
/// word is the program, looked up in `PATH`. No shell runs, so `$HOME`, `*`, `|`, `;` and `>` mean nothing.
///
/// Prints as the program alone, because arguments may hold secrets.
///
/// ```
/// use narthex::scraper::HookCommand;
///
/// let command: HookCommand = "/usr/local/bin/on-change 'two words'".parse()?;
/// assert_eq!(command.to_string(), "/usr/local/bin/on-change");
/// # Ok::<(), narthex::scraper::HookCommandError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct HookCommand {
    pub(super) program: String,
    pub(super) arguments: Vec<String>,
}

/// Why a text is not a [`HookCommand`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HookCommandError {
    /// There is no word.
    #[error("expected a program, and perhaps arguments")]
    NoProgram,
    /// The last quote or backslash has no counterpart.
    #[error("a quote is opened and not closed, or the text ends with a backslash")]
    OpenQuote,
    /// No argument can hold the byte 0.
    #[error("a command cannot contain the character U+0000")]
    Nul,
}

impl FromStr for HookCommand {
    type Err = HookCommandError;

    fn from_str(text: &str) -> Result<Self, HookCommandError> {
        if text.contains('\0') {
            return Err(HookCommandError::Nul);
        }
        let mut words = shlex::split(text).ok_or(HookCommandError::OpenQuote)?.into_iter();
        match words.next() {
            Some(program) if !program.is_empty() => Ok(Self { program, arguments: words.collect() }),
            _ => Err(HookCommandError::NoProgram),
        }
    }
}

impl fmt::Display for HookCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.program)
    }
}

impl fmt::Debug for HookCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HookCommand({} ..)", self.program)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_splits_them_and_nothing_else_happens() {
        let command: HookCommand =
            r#" reload 'quoted words' "a \"b\"" c\ d $HOME *.txt "" ; x|y "#.parse().expect("fine");
        assert_eq!(command.program, "reload");
        assert_eq!(command.arguments, ["quoted words", "a \"b\"", "c d", "$HOME", "*.txt", "", ";", "x|y"]);
    }

    #[test]
    fn a_text_that_is_no_command_is_refused() {
        for (text, error) in [
            ("", HookCommandError::NoProgram),
            ("  ", HookCommandError::NoProgram),
            ("'' x", HookCommandError::NoProgram),
            ("reload 'x", HookCommandError::OpenQuote),
            ("reload \\", HookCommandError::OpenQuote),
            ("reload \0", HookCommandError::Nul),
        ] {
            assert_eq!(text.parse::<HookCommand>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn what_is_logged_of_a_command_has_no_argument() {
        let command: HookCommand = "curl -H 'Authorization: secret'".parse().expect("fine");
        assert!(!format!("{command} {command:?}").contains("secret"));
    }
}
