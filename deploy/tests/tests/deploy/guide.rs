//! The guides: which commands they hold, and that what can't be run here is known.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use wasmbed_deploy_tests::Chart;

/// The commands of a guide, in its order: lines of fences that name no language.
pub(crate) fn commands(guide: &str) -> Result<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(guide);
    let text = std::fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
    let (mut commands, mut fence) = (Vec::new(), None);
    for line in text.lines() {
        match (line.strip_prefix("```"), fence) {
            (Some(language), None) => fence = Some(language),
            (Some(_), Some(_)) => fence = None,
            (None, Some("")) if !line.is_empty() => commands.push(line.to_owned()),
            (None, _) => {}
        }
    }
    Ok(commands)
}

/// Whether a command needs neither a container engine nor a kubelet. Helm's are run by the chart's tests, the static binary is
/// built by the pods'.
pub(crate) fn runs_here(command: &str) -> bool {
    let elsewhere = ["k3d ", "docker ", "podman ", "helm ", "cargo xtask container"];
    !elsewhere.iter().any(|start| command.starts_with(start)) && !command.contains(" rollout status ")
}

#[test]
fn the_guides_install_with_values_that_the_chart_takes() -> Result<()> {
    for guide in ["k3d.md", "install.md"] {
        let commands = commands(guide)?;
        let install =
            commands.iter().find(|line| line.starts_with("helm install ")).context("no helm install")?;
        let words: Vec<&str> = install.split_whitespace().collect();
        ensure!(words[..4] == ["helm", "install", "wasmbed", "deploy/chart"], "{install}");
        let mut chart = Chart::new("wasmbed", "wasmbed-system")?;
        for pair in words.windows(2).filter(|pair| pair[0] == "--set") {
            chart = chart.set(pair[1]);
        }
        let rendered = chart.render()?;
        ensure!(rendered.iter().any(|manifest| manifest.kind() == "StatefulSet"));
        if guide == "k3d.md" {
            let service = rendered.iter().find(|manifest| manifest.name() == "wasmbed-devices");
            let service = &service.context("no Service for devices")?.value;
            ensure!(service["spec"]["ports"][0]["nodePort"] == 30_080, "the port that k3d leads to");
        }
        let known = ["k3d", "docker", "podman", "helm", "cargo", "kubectl", "wasmbed"];
        for command in &commands {
            ensure!(known.iter().any(|word| command.split(' ').next() == Some(word)), "{command}");
        }
    }
    Ok(())
}
