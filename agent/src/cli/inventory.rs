//! `board-agent inventory`: looks at what is really installed, without the daemon.

use std::process::ExitCode;
use std::sync::Arc;

use agent::config::{self, Identity};
use agent::inventory::{self, Inventory};
use agent::outbound::Outbound;
use agent::platform;
use agent::steps::run::Launcher;
use agent::steps::{Context, environment};
use agent::vault;
use agent::verify::Memory;
use anyhow::Context as _;
use shared::catalog::Platform;
use shared::time::{Clock as _, SystemClock};

use super::{Show, say};

pub fn inventory(show: &Show) -> anyhow::Result<ExitCode> {
    // It opens the vault.
    platform::forbid_inspection()?;
    let paths = show.data.paths()?;
    let identity = Identity::load(&paths)?;
    let scope = config::load_scope(&paths)?;
    let digest =
        scope.bundle_digest.context("the agent has no catalog yet: it must reach its board first")?;
    let shelf = agent::bundles::Shelf::new(&paths, config::load_publisher_keys(&paths)?);
    let catalog = shelf.stored(&digest)?.context("the catalog of this device's scope is not here yet")?;
    let vault = Arc::new(vault::open(&paths, identity.dev)?);
    environment::make_dev_home(&identity, &paths)?;
    let platform = Platform::current().context("this operating system is not supported")?;
    let memory = Memory::load(&paths);
    let context = Context {
        launcher: Launcher::this_program()?,
        outbound: Outbound::public(),
        paths,
        identity: Arc::new(identity),
        vault,
    };
    let look = inventory::look(&context, &catalog, &scope.components, platform, &SystemClock);
    let components = super::runtime(1)?.block_on(look)?;
    let manifests = catalog.of_scope(&scope.components, platform);
    let slots = inventory::slots(&context.vault, &memory, &scope.params, manifests, SystemClock.now());
    let inventory = Inventory { components, slots };
    if show.json {
        say(&serde_json::to_string_pretty(&inventory)?);
    } else {
        table(&inventory);
    }
    Ok(ExitCode::SUCCESS)
}

fn table(inventory: &Inventory) {
    let word = |value: &serde_json::Value| value.as_str().unwrap_or("?").to_owned();
    for report in &inventory.components {
        let presence = word(&serde_json::json!(report.presence));
        let version = report.version.as_deref().unwrap_or("-");
        say(&format!("{:<24}{presence:<12}{version}", report.component));
        for evidence in &report.evidence {
            let saw = evidence.saw.lines().next().unwrap_or_default();
            say(&format!("    {}: {saw}", evidence.probe));
        }
    }
    for report in &inventory.slots {
        let state = word(&serde_json::json!(report.state));
        let version = report.version.map_or_else(|| "-".to_owned(), |version| version.to_string());
        say(&format!("{:<48}{state:<14}{version}", format!("{}/{}", report.component, report.slot)));
        if let Some(check) = &report.check {
            let recorded: Vec<_> =
                check.recorded.iter().map(|(name, value)| format!("{name}={value}")).collect();
            say(format!("    {}: {} {}", check.at, check.said, recorded.join(" ")).trim_end());
        }
    }
}
