//! A command line without a shell.

use std::{env, fmt, fs, io, path::Path, str::FromStr};

use rustix::fs::{Access, access};

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

/// A program that cannot be run.
#[derive(Debug, thiserror::Error)]
#[error("cannot run {program}")]
pub struct UnusableProgram {
    /// The first word of the command.
    pub program: String,
    /// Why not.
    pub source: io::Error,
}

impl HookCommand {
    /// Looks for the program as a run would.
    pub(crate) fn check(&self) -> Result<(), UnusableProgram> {
        self.find().map_err(|source| UnusableProgram { program: self.program.clone(), source })
    }

    fn find(&self) -> io::Result<()> {
        if self.program.contains('/') {
            return runs(Path::new(&self.program));
        }
        let path = env::var_os("PATH").unwrap_or_default();
        let mut found = env::split_paths(&path).map(|directory| runs(&directory.join(&self.program)));
        let missing = || io::Error::new(io::ErrorKind::NotFound, "no such program in PATH");
        found.find(Result::is_ok).unwrap_or_else(|| Err(missing()))
    }
}

/// Whether this is a file that we may execute.
fn runs(program: &Path) -> io::Result<()> {
    match fs::metadata(program)?.is_file() {
        true => Ok(access(program, Access::EXEC_OK)?),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file")),
    }
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
    fn a_program_that_no_run_would_find_is_known_before() {
        for program in ["sh", "/bin/sh -c x"] {
            program.parse::<HookCommand>().expect("fine").check().expect("runs");
        }
        for (program, why) in [
            ("no-such-program", "no such program in PATH"),
            ("/nowhere/x", "No such file"),
            ("/etc/passwd", "denied"),
            ("/etc", "not a file"),
        ] {
            let error = program.parse::<HookCommand>().expect("fine").check().expect_err(program);
            assert!(error.source.to_string().contains(why), "{program}: {}", error.source);
        }
    }

    #[test]
    fn what_is_logged_of_a_command_has_no_argument() {
        let command: HookCommand = "curl -H 'Authorization: secret'".parse().expect("fine");
        assert!(!format!("{command} {command:?}").contains("secret"));
    }
}
