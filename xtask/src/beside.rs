//! A command that runs beside others: what it prints goes to a file and is shown in one piece once it has ended.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};

use crate::{container, process};

/// A command on its way. Whoever starts one waits for it, also if what ran beside it failed.
pub(crate) struct Beside {
    what: &'static str,
    child: Child,
    log: PathBuf,
}

impl Beside {
    /// Starts it; `what` names it and its file, `target/<what>.log`.
    pub(crate) fn start(what: &'static str, command: &mut Command) -> Result<Self> {
        let folder = process::top().join(container::target());
        let log = folder.join(format!("{}.log", what.replace(' ', "-")));
        let failed = || format!("can't write {}", log.display());
        fs::create_dir_all(&folder).with_context(failed)?;
        let file = File::create(&log).with_context(failed)?;
        let other = file.try_clone().with_context(failed)?;
        println!("    {what} beside what follows: {}", log.display());
        let child = command.stdin(Stdio::null()).stdout(file).stderr(other).spawn();
        Ok(Self { what, child: child.with_context(|| format!("can't start {what}"))?, log })
    }

    /// Waits for it and prints what it printed; whether it succeeded, and that text.
    pub(crate) fn end(mut self) -> Result<(bool, String)> {
        let status = self.child.wait().with_context(|| format!("can't wait for {}", self.what))?;
        let printed = fs::read(&self.log).with_context(|| format!("can't read {}", self.log.display()))?;
        let printed = String::from_utf8_lossy(&printed).into_owned();
        process::step(self.what);
        println!("{printed}");
        if !status.success() {
            println!("{} ended with {status}", self.what);
        }
        Ok((status.success(), printed))
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::Beside;

    #[test]
    fn what_runs_beside_is_waited_for_and_its_failure_is_told() {
        let mut good = Command::new("sh");
        good.args(["-c", "sleep 0.1; echo out; echo err >&2"]);
        let mut bad = Command::new("sh");
        bad.args(["-c", "echo lost; exit 3"]);
        let started = [Beside::start("a good one", &mut good), Beside::start("a bad one", &mut bad)];
        let ended = started.map(|started| started.and_then(Beside::end).map_err(|error| error.to_string()));
        assert_eq!(ended[0], Ok((true, "out\nerr\n".to_owned())));
        assert_eq!(ended[1], Ok((false, "lost\n".to_owned())));
    }
}
