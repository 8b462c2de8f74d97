//! The verbs in groups, as `torpor --help` shows them.

use clap::Command;
use std::fmt::Write;

/// By what people come for; within a group in the order in which they meet them.
const GROUPS: [(&str, &[&str]); 5] = [
    ("Run programs", &["run", "serve", "wait", "stop", "demo"]),
    (
        "Serve functions over HTTP",
        &["router", "deploy", "invoke", "logs", "scale", "delete", "load-test", "report"],
    ),
    ("Look", &["top", "functions", "ps", "gpus", "topology", "events", "doctor"]),
    ("Control", &["load", "unload", "pin"]),
    ("Prepare and measure", &["config", "cdi", "completion", "manual", "bench", "calibrate", "simulate"]),
];

/// The command with its verbs in groups.
pub fn grouped(command: Command) -> Command {
    let width = GROUPS.iter().flat_map(|(_, verbs)| verbs.iter()).map(|verb| verb.len()).max().unwrap_or(0);
    let mut text = String::from("{about-with-newline}\n{usage-heading} {usage}\n");
    for (group, verbs) in GROUPS {
        // A String takes all that is written.
        let _ = writeln!(text, "\n{group}:");
        for verb in verbs {
            let found = command.find_subcommand(verb).and_then(Command::get_about);
            let about = found.map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(text, "  {verb:<width$}  {about}");
        }
    }
    text.push_str("\nOptions:\n{options}{after-help}");
    command.help_template(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use std::collections::BTreeSet;

    #[test]
    fn every_verb_that_is_shown_is_in_one_group() {
        let command = crate::Arguments::command();
        let shown = command.get_subcommands().filter(|verb| !verb.is_hide_set());
        let shown: BTreeSet<&str> = shown.map(Command::get_name).collect();
        let grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, verbs)| verbs.iter().copied()).collect();
        assert_eq!(grouped.iter().copied().collect::<BTreeSet<_>>(), shown);
        assert_eq!(grouped.len(), shown.len(), "one is in two groups");
        let help = super::grouped(command).render_help().to_string();
        assert!(help.contains("Look:\n  top        ") && help.contains("Exit codes:"), "{help}");
    }
}
