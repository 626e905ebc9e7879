//! Additions to clap's help: examples that can be pasted, and usage with `--config`.

use clap::{Arg, Command};

use super::precedence;

/// Clap's own template, without the text after the help.
const TEMPLATE: &str = "\
{before-help}{about-with-newline}
{usage-heading} {usage}

{all-args}";

/// The command and all its subcommands, with such help.
pub(super) fn readable(command: Command) -> Command {
    pastable(with_usage(command)).mut_subcommands(readable)
}

/// Moves the examples after the help into the template, where clap breaks no lines.
fn pastable(command: Command) -> Command {
    match command.get_after_help().map(ToString::to_string) {
        Some(examples) => command.help_template(format!("{TEMPLATE}\n\n{examples}")),
        None => command,
    }
}

/// Shows `--config` as another way to give the required flags.
fn with_usage(command: Command) -> Command {
    let required = command.get_arguments().filter(|arg| arg.is_required_set());
    let required: Vec<String> = required.filter_map(with_value).collect();
    if required.is_empty() || !command.get_arguments().any(|arg| arg.get_id() == precedence::CONFIG) {
        return command;
    }
    let usage = format!("narthex {} [OPTIONS]", command.get_name());
    command.override_usage(format!("{usage} {}\n       {usage} --config <FILE>", required.join(" ")))
}

/// The flag with its value, as clap's usage writes it. Clap itself needs the whole command built for that.
fn with_value(arg: &Arg) -> Option<String> {
    Some(format!("--{} <{}>", arg.get_long()?, arg.get_value_names()?.first()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli;

    /// Calls `check` with each command and its help at a terminal width.
    fn each(width: usize, check: &mut impl FnMut(&Command, &str)) {
        fn visit(command: &mut Command, check: &mut impl FnMut(&Command, &str)) {
            let help = command.render_long_help().to_string();
            check(command, &help);
            command.get_subcommands_mut().for_each(|inner| visit(inner, check));
        }
        let mut command = readable(cli::command()).term_width(width);
        command.build();
        visit(&mut command, check);
    }

    #[test]
    fn what_stands_after_the_help_is_not_broken_in_a_terminal_of_any_width() {
        let mut seen = 0;
        for width in (60..=200).step_by(20) {
            each(width, &mut |command, help| {
                let Some(examples) = command.get_after_help() else { return };
                assert!(help.trim_end().ends_with(&examples.to_string()), "{} at {width}:\n{help}", command.get_name());
                seen += 1;
            });
        }
        assert!(seen > 0);
    }

    #[test]
    fn an_example_goes_on_in_the_next_line_after_a_backslash_only() {
        each(100, &mut |command, _| {
            let Some(examples) = command.get_after_help().map(ToString::to_string) else { return };
            for (line, next) in examples.lines().zip(examples.lines().skip(1)) {
                let goes_on = next.trim_start().starts_with("--");
                assert_eq!(line.ends_with('\\'), goes_on, "{}: {line}\n{next}", command.get_name());
            }
        });
    }

    #[test]
    fn usage_shows_the_file_that_may_give_required_flags() {
        let mut commands = Vec::new();
        each(100, &mut |command, help| {
            if help.contains("[OPTIONS] --config <FILE>\n") {
                commands.push(command.get_name().to_owned());
            }
        });
        assert_eq!(commands, ["agent", "file-sd", "template"]);
        each(100, &mut |command, help| {
            if help.contains("NARTHEX_TARGET") && command.get_name() == "agent" {
                let usage =
                    "Usage: narthex agent [OPTIONS] --ticket-file <FILE> --target <ALIAS=URL>\n       narthex agent";
                assert!(help.contains(usage), "{help}");
            }
        });
    }
}
