//! What may follow on the command line of `kubectl wasmbed`, as kubectl asks for it (Cobra's protocol: a line for each word, a tab
//! before its description, and a last line with a directive).

use std::time::Duration;

use anyhow::Result;
use clap::Command;
use wasmbed_api::kind;

use crate::{
    cluster::{ClusterArgs, Resource},
    output::print_line,
};

/// No names of files either.
const NO_FILES: &str = ":4";
/// Names of files.
const FILES: &str = ":0";
/// A shell waits for it.
const TIMEOUT: Duration = Duration::from_secs(2);
/// More than fit on a screen.
const NAMES_MAX: u32 = 500;

/// Prints them. `words` are those of the command line after `kubectl wasmbed`, the last one being typed.
pub(super) async fn run(command: Command, words: Vec<String>) -> Result<()> {
    let (before, typed) = match words.split_last() {
        Some((typed, before)) => (before, typed.as_str()),
        None => (&[][..], ""),
    };
    let Some(verb) = before.first() else {
        words_of(command.get_subcommands(), typed).iter().for_each(|line| print_line(line));
        print_line(NO_FILES);
        return Ok(());
    };
    let Some(verb) = command.get_subcommands().find(|found| found.get_name() == verb) else {
        print_line(NO_FILES);
        return Ok(());
    };
    if typed.starts_with('-') {
        flags_of(verb, typed).iter().for_each(|line| print_line(line));
        print_line(NO_FILES);
    } else if verb.get_name() == "run" {
        print_line(FILES);
    } else if verb.get_name() == "messages" {
        // It takes flags alone.
        print_line(NO_FILES);
    } else {
        let kind = if ["logs", "publish", "settings"].contains(&verb.get_name()) {
            ("Application", "applications")
        } else {
            (kind::DEVICE, "devices")
        };
        // A shell has no place for an error.
        let names = tokio::time::timeout(TIMEOUT, names(kind, before)).await;
        let names = names.ok().and_then(Result::ok).unwrap_or_default();
        names.iter().filter(|name| name.starts_with(typed)).for_each(|name| print_line(name));
        print_line(NO_FILES);
    }
    Ok(())
}

fn words_of<'a>(commands: impl Iterator<Item = &'a Command>, typed: &str) -> Vec<String> {
    let found = commands.filter(|command| command.get_name().starts_with(typed));
    found.map(|command| with_help(command.get_name(), command.get_about())).collect()
}

fn flags_of(command: &Command, typed: &str) -> Vec<String> {
    let flags =
        command.get_arguments().filter_map(|argument| Some((argument.get_long()?, argument.get_help())));
    let flags = flags.map(|(long, help)| (format!("--{long}"), help));
    flags.filter(|(flag, _)| flag.starts_with(typed)).map(|(flag, help)| with_help(&flag, help)).collect()
}

fn with_help(word: &str, help: Option<&clap::builder::StyledStr>) -> String {
    let text = help.map(ToString::to_string).unwrap_or_default();
    match text.lines().next() {
        Some(first) if !first.is_empty() => format!("{word}\t{first}"),
        _ => word.to_owned(),
    }
}

/// Names of objects in the namespace that the command line names.
async fn names((kind, plural): (&str, &str), before: &[String]) -> Result<Vec<String>> {
    let mut arguments = ClusterArgs::default();
    for pair in before.windows(2) {
        match pair[0].as_str() {
            "-n" | "--namespace" => arguments.namespace = Some(pair[1].clone()),
            "--kubeconfig" => arguments.kubeconfig = Some(pair[1].clone().into()),
            _ => {}
        }
    }
    let cluster = arguments.connect().await?;
    let resource = Resource::ours(kind, plural);
    let path = format!("{}?limit={NAMES_MAX}", resource.collection(Some(&cluster.namespace)));
    let list = cluster.read(&path).await?.unwrap_or_default();
    let items = list["items"].as_array().into_iter().flatten();
    Ok(items.filter_map(|item| item["metadata"]["name"].as_str()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn verbs_and_flags_are_completed_with_their_help() {
        let command = crate::plugin::Args::command();
        let verbs = words_of(command.get_subcommands(), "");
        for verb in ["approve", "decommission", "deny", "logs", "messages", "publish", "label", "run"] {
            assert!(verbs.iter().any(|line| line.starts_with(&format!("{verb}\t"))), "{verbs:?}");
        }
        assert_eq!(words_of(command.get_subcommands(), "den").len(), 1);
        let approve = command.find_subcommand("approve").unwrap();
        let flags = flags_of(approve, "--f");
        assert!(flags.len() == 1 && flags[0].starts_with("--fingerprint\tThe fingerprint"), "{flags:?}");
    }
}
