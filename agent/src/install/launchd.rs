//! The agent as a LaunchDaemon.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{LABEL, PROGRAM};
use crate::logs;

pub const LAUNCHCTL: &str = "/bin/launchctl";

/// Seconds between two starts of an agent that ends by itself.
const THROTTLE: u32 = 10;
/// Seconds that a stopping agent has to let an installer finish that must not be killed.
pub const EXIT: u32 = 600;

/// Open files; launchd's own limit is 256.
const FILES: u64 = 4096;

/// The keys of `launchd.plist(5)` that are used here, and no others.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct LaunchDaemon {
    pub label: String,
    pub program_arguments: Vec<String>,
    pub environment_variables: BTreeMap<String, String>,
    pub working_directory: String,
    pub umask: u32,
    pub run_at_load: bool,
    pub keep_alive: bool,
    pub throttle_interval: u32,
    pub exit_time_out: u32,
    /// Not `Background`: the steps that it runs would be throttled with it.
    pub process_type: String,
    pub soft_resource_limits: ResourceLimits,
    pub hard_resource_limits: ResourceLimits,
    /// Both hold only what comes before logging starts, and panics.
    pub standard_out_path: PathBuf,
    pub standard_error_path: PathBuf,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ResourceLimits {
    /// Bytes of a core file.
    pub core: u64,
    pub number_of_files: u64,
}

pub fn path() -> PathBuf {
    PathBuf::from(format!("/Library/LaunchDaemons/{LABEL}.plist"))
}

/// How `launchctl` names the service.
pub fn target() -> String {
    format!("system/{LABEL}")
}

pub fn property_list(data: &Path, logs: &Path) -> String {
    let arguments = [PROGRAM, "run", "--wait-for-join", "--data"].map(str::to_owned);
    let folders = [data.display().to_string(), "--log-folder".to_owned(), logs.display().to_string()];
    let daemon = LaunchDaemon {
        label: LABEL.to_owned(),
        program_arguments: arguments.into_iter().chain(folders).collect(),
        environment_variables: BTreeMap::from([
            // launchd sets none for daemons, and tools that miss it look in odd places.
            ("HOME".to_owned(), "/var/root".to_owned()),
            ("PATH".to_owned(), "/usr/bin:/bin:/usr/sbin:/sbin".to_owned()),
        ]),
        working_directory: "/".to_owned(),
        umask: 0o022,
        run_at_load: true,
        keep_alive: true,
        throttle_interval: THROTTLE,
        exit_time_out: EXIT,
        process_type: "Standard".to_owned(),
        soft_resource_limits: ResourceLimits { core: 0, number_of_files: FILES },
        hard_resource_limits: ResourceLimits { core: 0, number_of_files: FILES },
        standard_out_path: logs.join(logs::SERVICE_OUTPUT),
        standard_error_path: logs.join(logs::SERVICE_OUTPUT),
    };
    let mut xml = Vec::new();
    plist::to_writer_xml(&mut xml, &daemon).expect("strings, numbers and booleans fit into a property list");
    xml.push(b'\n');
    String::from_utf8(xml).expect("a property list is written as UTF-8")
}
