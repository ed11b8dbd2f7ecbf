//! `wasmbed get settings`: what the settings of an application are, by way of the gateways and as the user of Kubernetes.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Result, bail, ensure};
use futures::future::join_all;
use wasmbed_control::gateway_api::{DeviceSettingsReport, SettingReport, SettingScalar, SettingsReport};
use wasmbed_telemetry::with_causes;

use super::logs::{self, Filter, Gateway, Source};
use crate::{
    cluster::ClusterArgs,
    output::{self, harmless, print},
    values,
};

/// Show what the settings of an application are on its devices.
///
/// A device says what became of each value, and which value is in use of settings that the module declares as reported. Gateways let
/// you if the Kubernetes API allows you to get devices/settings.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The Application.
    pub(crate) application: String,
    #[command(flatten)]
    pub(crate) at: At,
    /// How to print them.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

/// Which devices, and by way of whom.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct At {
    /// Settings on this Device.
    #[arg(short, long, value_name = "NAME")]
    pub(crate) device: Option<String>,
    /// A gateway as host:port, for settings; can be repeated [default: every DeviceGateway of the cluster].
    #[arg(long, value_name = "HOST:PORT", value_parser = values::gateway)]
    pub(crate) gateway: Vec<String>,
    /// Folder with operator.crt, operator.key and services-ca.crt, as `pki issue operator` writes them, for settings [default: the
    /// certificate of wasmbed login].
    #[arg(long, value_name = "DIR", env = "WASMBED_PKI")]
    pub(crate) pki: Option<PathBuf>,
}

/// How settings are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// One line for each setting of each device.
    Table,
    /// One JSON object for each device, a line each.
    Json,
}

/// Runs the command; the error is a message for the user, with exit code 1.
///
/// # Errors
/// A named object does not exist, no gateway could be called, or the identity is unusable.
pub(crate) async fn run(args: Args) -> Result<()> {
    let cluster = args.cluster.connect().await?;
    let filter = Filter {
        namespace: Some(cluster.namespace.clone()),
        application: Some(args.application.clone()),
        device: args.at.device.clone(),
    };
    if let Some(missing) = logs::missing(&cluster, &filter).await? {
        bail!(missing);
    }
    let source = logs::source(&cluster, &args.cluster, &args.at.gateway, args.at.pki.as_deref()).await?;
    source.credentials.current().await?;
    let devices = read(&source, &cluster.namespace, &args.application, args.at.device.as_deref()).await?;
    match args.output {
        Output::Json => {
            for device in &devices {
                print(&(serde_json::to_string(device)? + "\n"));
            }
        }
        Output::Table => print(&table(&devices)),
    }
    if devices.is_empty() {
        output::complain("no gateway has a device with this Application in its set");
    }
    Ok(())
}

/// Asks every gateway: of a device that several know, the one that it has its session with says what is so.
async fn read(
    source: &Source,
    namespace: &str,
    application: &str,
    device: Option<&str>,
) -> Result<Vec<DeviceSettingsReport>> {
    ensure!(!source.gateways.is_empty(), "the cluster has no DeviceGateway; is a gateway running?");
    let call = async |address: &String| -> Result<Vec<DeviceSettingsReport>> {
        let mut devices = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let parameters = [
                ("namespace", Some(namespace)),
                ("application", Some(application)),
                ("device", device),
                ("after", after.as_deref()),
            ];
            let gateway = Gateway::getting(address, source.credentials.clone(), "/v1/settings", &parameters);
            let page: SettingsReport = gateway.answer().await?;
            devices.extend(page.devices);
            match page.continue_after {
                // One that names the same place twice would be asked without end.
                Some(next) if after.as_ref() < Some(&next) => after = Some(next),
                Some(_) | None => return Ok(devices),
            }
        }
    };
    let mut devices: BTreeMap<String, DeviceSettingsReport> = BTreeMap::new();
    let mut failed = Vec::new();
    for (address, answer) in source.gateways.iter().zip(join_all(source.gateways.iter().map(call)).await) {
        match answer {
            Ok(answer) => answer.into_iter().for_each(|said| keep_newest(&mut devices, said)),
            Err(error) => failed.push(format!("gateway {address}: {}", with_causes(error.as_ref()))),
        }
    }
    if failed.len() == source.gateways.len() {
        bail!("no gateway could be called: {}", failed.join("; "));
    }
    failed.iter().for_each(|failure| output::complain(&format!("warning: {failure}")));
    Ok(devices.into_values().collect())
}

fn keep_newest(devices: &mut BTreeMap<String, DeviceSettingsReport>, said: DeviceSettingsReport) {
    let rank = |report: &DeviceSettingsReport| (report.connected, report.answered_at);
    if devices.get(&said.device).is_none_or(|known| rank(known) < rank(&said)) {
        devices.insert(said.device.clone(), said);
    }
}

/// For a terminal.
fn table(devices: &[DeviceSettingsReport]) -> String {
    let mut rows = vec![["DEVICE", "SETTING", "WANTED", "IN USE", "RESULT"].map(str::to_owned)];
    let shown = |value: &Option<SettingScalar>| {
        value.as_ref().map_or_else(|| "-".to_owned(), |value| harmless(&value.to_string()).into_owned())
    };
    for device in devices {
        for setting in &device.settings {
            rows.push([
                harmless(&device.device).into_owned(),
                harmless(&setting.name).into_owned(),
                shown(&setting.wanted),
                shown(&setting.value),
                harmless(result(device, setting)).into_owned(),
            ]);
        }
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..5).map(width).collect();
    let line = |row: &[String; 5]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}   "));
        cells.collect::<String>().trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// What became of the value that a setting is to have.
fn result<'a>(device: &DeviceSettingsReport, setting: &'a SettingReport) -> &'a str {
    let is_answered = device.revision.is_none() || device.revision == device.revision_answered;
    match &setting.result {
        _ if device.unsupported => "Unsupported",
        Some(result) if is_answered && setting.wanted.is_none() && result == "Accepted" => "Default",
        Some(result) if is_answered => result,
        _ => "Waiting",
    }
}

#[cfg(test)]
mod tests {
    use wasmbed_control::UnixTime;

    use super::*;

    fn setting(name: &str, wanted: Option<i64>, value: Option<i64>, result: Option<&str>) -> SettingReport {
        let scalar = |value: Option<i64>| value.map(SettingScalar::Integer);
        let result = result.map(str::to_owned);
        SettingReport { name: name.to_owned(), wanted: scalar(wanted), value: scalar(value), result }
    }

    fn report(device: &str, answered: u64) -> DeviceSettingsReport {
        DeviceSettingsReport {
            device: device.to_owned(),
            connected: true,
            revision: Some(5),
            revision_answered: Some(answered),
            answered_at: Some(UnixTime::from_ms(answered)),
            settings: vec![
                setting("interval", Some(500), Some(500), Some("Accepted")),
                setting("level", None, Some(3), Some("Accepted")),
                setting("limit", Some(9), Some(7), Some("OutOfRange")),
            ],
            ..DeviceSettingsReport::default()
        }
    }

    #[test]
    fn a_line_says_what_is_wanted_and_what_came_of_it() {
        let expected = "\
DEVICE   SETTING    WANTED   IN USE   RESULT
a        interval   500      500      Accepted
a        level      -        3        Default
a        limit      9        7        OutOfRange
b        interval   500      500      Waiting
b        level      -        3        Waiting
b        limit      9        7        Waiting
";
        assert_eq!(table(&[report("a", 5), report("b", 4)]), expected);
    }

    #[test]
    fn of_two_gateways_the_one_that_has_the_session_counts() {
        let mut devices = BTreeMap::new();
        let away = DeviceSettingsReport { connected: false, ..report("a", 9) };
        keep_newest(&mut devices, away.clone());
        keep_newest(&mut devices, report("a", 5));
        keep_newest(&mut devices, away);
        assert_eq!(devices["a"].revision_answered, Some(5));
    }
}
